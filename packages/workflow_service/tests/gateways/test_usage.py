"""What calls to language models took, on a real PostgreSQL."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from workflow_service.domain.language_model import ModelTotal, ModelUsage
from workflow_service.gateways.postgres.usage import PostgresUsageStore

pytestmark = pytest.mark.needs("postgres")

WithPool = Callable[[Callable[[Any], Any]], Any]
DEAR = ModelUsage("openai:dear", 1000, 200, 0.000_012_5)
FREE = ModelUsage("ollama:unpriced", 10, 20)


def test_calls_are_summed_by_model_the_dearest_first(with_pool: WithPool) -> None:
    """Prices as small as a token's are kept; calls without a price are counted as such."""

    async def scenario(pool: Any) -> None:
        usage = PostgresUsageStore(pool.acquire)
        for each in (FREE, DEAR, DEAR):
            await usage.record("alice", uuid4(), each)
        report = await usage.report("alice")
        assert report.models == [
            ModelTotal("openai:dear", 2, 2000, 400, pytest.approx(0.000_025), 0),
            ModelTotal("ollama:unpriced", 1, 10, 20, None, 1),
        ]

    with_pool(scenario)


def test_a_user_sees_own_calls_only_of_a_run_or_of_a_time(with_pool: WithPool) -> None:
    """Other users' calls are nobody's business, also when their run is asked for."""

    async def scenario(pool: Any) -> None:
        usage, run_id, others = PostgresUsageStore(pool.acquire), uuid4(), uuid4()
        await usage.record("alice", run_id, DEAR)
        await usage.record("alice", None, DEAR)
        await usage.record("bob", others, FREE)
        assert [total.calls for total in (await usage.report("alice")).models] == [2]
        assert [total.calls for total in (await usage.report("alice", run_id=run_id)).models] == [1]
        assert (await usage.report("alice", run_id=others)).models == []
        now = datetime.now(UTC)
        for since, until, calls in (
            (now - timedelta(hours=1), now + timedelta(hours=1), [2]),
            (now + timedelta(hours=1), None, []),
            (None, now - timedelta(hours=1), []),
        ):
            totals = (await usage.report("alice", since=since, until=until)).models
            assert [total.calls for total in totals] == calls

    with_pool(scenario)
