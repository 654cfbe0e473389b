"""Many graphs at once over the tiers, on one database, with contention on savers."""

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest
from graph_runs import go, thread

from homeloop import Isolation
from homeloop.adapters.langgraph import LangGraphEventLoopManager

pytestmark = pytest.mark.needs("postgres")
MANY = 200
POOL = 4  # connections of each pool, as in graph_work


def test_many_graphs_on_one_database(work: Any, dsn: str, manager: LangGraphEventLoopManager) -> None:
    """Issue 6: no error, never more connections than the pools may have, none left, every thread whole."""
    tiers = [Isolation.NONE, Isolation.CONTEXT, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
    begin = {"n": 0, "places": []}
    most = 0

    async def watch() -> None:
        nonlocal most
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while True:
                most = max(most, await connections(connection))
                await asyncio.sleep(0.01)

    async def main() -> None:
        watching = asyncio.create_task(watch())
        scopes = [manager.executor.isolated(f"{tier} {at}", isolation=tier) for at, tier in enumerate(tiers)]
        configs = [thread() for _ in range(MANY)]
        try:
            async with scopes[0], scopes[1], scopes[2], scopes[3], scopes[4]:
                runs = (
                    scopes[number % len(scopes)].run(work.adding.ainvoke_durably, begin, config)
                    for number, config in enumerate(configs)
                )
                results = await asyncio.gather(*runs)
        finally:
            watching.cancel()
            await asyncio.wait((watching,))
        assert Counter(result["n"] for result in results) == {4: MANY}
        async with work.adding() as graph:
            for config, result in zip(configs, results, strict=True):
                assert (await graph.aget_state(config)).values == result

    earlier = manager.statistics()
    go(main)
    assert 1 <= most <= POOL * len(tiers)
    for tier, each in manager.statistics().tiers.items():
        assert (each.failed, each.leftovers) == (earlier.tiers[tier].failed, earlier.tiers[tier].leftovers)

    async def none_left() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while await connections(connection):  # noqa: ASYNC110 - the server may still be ending them
                await asyncio.sleep(0.01)

    go(none_left)


async def connections(connection: psycopg.AsyncConnection[Any]) -> int:
    """Count the database's connections, except this one."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row[0])
