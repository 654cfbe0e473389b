"""The checkpoint pool at the end of its loop."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from homeloop import LoopLocal
from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool

pytestmark = pytest.mark.needs("postgres")


def test_it_closes_its_connections_though_its_own_tasks_were_cancelled_before(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio.run, as every owner of a loop, cancels the pool's workers before the pool can be closed."""
    application = f"checkpoints-{uuid4().hex}"
    pools = LoopLocal(
        lambda: open_checkpoint_pool(f"{database}?application_name={application}", 3, lease=30.0),
        name="checkpoints",
    )
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"

    async def use() -> int:
        async with pools() as pool, pool.connection() as connection:
            await connection.execute("SELECT 1")
        return await open_connections()

    async def open_connections() -> int:
        connection = await asyncpg.connect(database)
        try:
            return int(await connection.fetchval(count, application))
        finally:
            await connection.close()

    assert asyncio.run(use()) > 0
    for _ in range(100):  # a server process ends a moment after its connection
        if not (left := asyncio.run(open_connections())):
            break
    assert left == 0
    assert "ResourceCloseFailed" not in caplog.text
