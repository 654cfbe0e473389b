"""LangGraph's tables are made by whoever comes first, and others at the same time do no harm."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from graph_runs import go, thread
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from homeloop.adapters.langgraph import LoopLocalGraph
from homeloop.adapters.langgraph.postgres import _SET_UP_LOCK, loop_local_saver, loop_local_store, set_up

pytestmark = pytest.mark.needs("postgres")
AT_ONCE = 6
TRIES = 10


async def at_once(fn: Callable[[], Any]) -> list[BaseException]:
    """Do something several times at once, each on a loop of its own; return what was raised."""
    calls = (asyncio.to_thread(lambda: asyncio.run(fn())) for _ in range(AT_ONCE))
    return [error for error in await asyncio.gather(*calls, return_exceptions=True) if error is not None]


def test_set_up_at_once(new_database: Callable[[], str]) -> None:
    """LangGraph's own set-up fails against itself; ours waits for the others."""

    async def by_hand() -> None:
        async with AsyncPostgresSaver.from_conn_string(where) as saver:
            await saver.setup()

    for _ in range(TRIES):
        where = new_database()
        if go(at_once, by_hand):
            break
    else:
        pytest.fail("LangGraph's own set-up does not need this any more")
    where = new_database()
    assert go(at_once, lambda: set_up(where)) == []


def test_ensure_tables(new_database: Callable[[], str], work: Any) -> None:
    """Savers and stores make the tables that they need, on whatever loop they are opened first."""
    where = new_database()
    graphs = LoopLocalGraph(
        work.builder(remember=work.remember),
        checkpointer=loop_local_saver(where, ensure_tables=True),
        store=loop_local_store(where, ensure_tables=True),
    )

    async def run() -> None:
        assert (await graphs.ainvoke({"n": 0, "places": []}, thread()))["n"] == 1

    assert go(at_once, run) == []
    go(run)


def test_others_who_do_not_end(dsn: str) -> None:
    """Who waits for others in vain is told so."""
    with psycopg.connect(dsn) as holder:
        holder.execute("select pg_advisory_lock(%s)", (_SET_UP_LOCK,))

        async def wait() -> None:
            await set_up(dsn, timeout=0.1)

        with pytest.raises(TimeoutError, match="others have been setting up LangGraph's tables"):
            go(wait)
