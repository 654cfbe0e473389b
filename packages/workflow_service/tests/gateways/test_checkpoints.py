"""The pool that LangGraph's savers work on: what it makes of a database that goes away."""

import asyncio
from typing import TypedDict
from uuid import UUID, uuid4

import asyncpg
import pytest
from langgraph.graph import END, START, StateGraph

from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool, saver_on
from workflow_service.ports import StoreUnavailableError

pytestmark = pytest.mark.needs("postgres")

LEASE = 30.0  # seconds
RUN = str(uuid4())

END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class State(TypedDict):
    """What the graph of a test keeps."""

    done: bool


async def end_sessions(url):
    """End every other session of the database, and return when they are gone."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(END_SESSIONS)
    finally:
        await connection.close()


def run(main):
    asyncio.run(asyncio.wait_for(main(), 60))


async def invoke(saver, node):
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    config = {"configurable": {"thread_id": RUN}}
    return await graph.compile(checkpointer=saver).ainvoke({"done": False}, config, durability="sync")


async def finish(_state):
    return {"done": True}


def test_workers_that_start_at_once_wait_for_each_other(database):
    """The first start of several workers on an empty database makes LangGraph's tables once, and fails none."""

    async def start():
        async with open_checkpoint_pool(database, 1, LEASE):
            pass

    async def main():
        connection = await asyncpg.connect(database)
        try:
            tables = ("checkpoint_migrations", "checkpoints", "checkpoint_blobs", "checkpoint_writes")
            await connection.execute(f"DROP TABLE IF EXISTS {', '.join(f'workflow.{table}' for table in tables)}")
        finally:
            await connection.close()
        await asyncio.gather(*(start() for _ in range(6)))

    run(main)


def test_connections_that_died_idle_are_replaced(database):
    """A server that closed the pool's connections between two runs fails neither of them."""

    async def main():
        async with open_checkpoint_pool(database, 2, LEASE) as pool:
            for _ in range(2):
                async with saver_on(pool, UUID(RUN), None) as saver:
                    assert await invoke(saver, finish) == {"done": True}
                await end_sessions(database)

    run(main)


def test_a_connection_that_breaks_in_use_says_that_the_store_is_unavailable(database):
    """What psycopg raises comes out as the port's error, with the reason and what to check."""

    async def main():
        async with open_checkpoint_pool(database, 1, LEASE) as pool, pool.connection() as connection:
            await end_sessions(database)
            await connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailableError, match=r"terminating connection.*check DATABASE_URL"):
        run(main)


def test_a_pool_without_a_free_connection_says_that_the_store_is_unavailable(database):
    """The pool's own time-out is translated as well, through a graph as LangGraph raises it."""

    async def main():
        async with open_checkpoint_pool(database, 1, LEASE) as pool, pool.connection():
            pool.timeout = 0.05
            async with saver_on(pool, UUID(RUN), None) as saver:
                await invoke(saver, finish)

    with pytest.raises(StoreUnavailableError, match="couldn't get a connection"):
        run(main)


def test_a_fault_in_a_statement_stays_what_it_is(database):
    """Only the loss of the database is worth another attempt."""

    async def main():
        async with open_checkpoint_pool(database, 1, LEASE) as pool, pool.connection() as connection:
            await connection.execute("SELECT nothing FROM nowhere")

    with pytest.raises(Exception, match="nowhere") as raised:
        run(main)
    assert not isinstance(raised.value, StoreUnavailableError)


def test_a_server_that_is_away_at_the_start_is_unavailable(monkeypatch):
    """Opening raises the port's error too, and leaves nothing open."""
    monkeypatch.setattr("workflow_service.gateways.postgres.checkpoints._OPEN_TIMEOUT", 0.2)

    async def main():
        async with open_checkpoint_pool("postgresql://postgres@127.0.0.1:1/none", 1, LEASE):
            raise AssertionError("nobody listens there")

    with pytest.raises(StoreUnavailableError):
        run(main)


def test_a_lock_that_a_frozen_worker_holds_ends_an_attempt(database):
    """Whoever waits for a lock longer than the lease gives up, and the run is taken again; it waits for no one."""

    async def main():
        holder = await asyncpg.connect(database)
        try:
            async with open_checkpoint_pool(database, 1, 0.05) as pool, holder.transaction():
                await holder.execute("LOCK TABLE workflow.checkpoints")
                with pytest.raises(StoreUnavailableError, match="lock timeout"):
                    async with saver_on(pool, UUID(RUN), None) as saver:
                        await invoke(saver, finish)
        finally:
            await holder.close()

    run(main)
