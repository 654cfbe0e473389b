"""What PostgreSQL says to a saver or a store that cannot connect is what their user reads."""

import asyncio
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from graph_runs import go, thread
from psycopg import sql
from psycopg_pool import PoolTimeout

from homeloop import Isolation
from homeloop.adapters.langgraph import LangGraphEventLoopManager, LoopLocalGraph
from homeloop.adapters.langgraph.postgres import loop_local_pool, loop_local_saver, loop_local_store

pytestmark = pytest.mark.needs("postgres")
BEGIN = {"n": 0, "places": []}
NEVER = 3_600.0  # seconds; longer than any test


@pytest.fixture
def of_role(dsn: str) -> Iterator[Callable[[str], str]]:
    """Return addresses of the database for roles of their own; make the role with what it is told of it."""
    names: list[str] = []

    def make(options: str) -> str:
        names.append(f"homeloop_test_{uuid.uuid4().hex[:12]}")
        with psycopg.connect(dsn, autocommit=True) as connection:
            create = sql.SQL("create role {} " + options)  # type: ignore[arg-type]  # pyright: ignore
            connection.execute(create.format(sql.Identifier(names[-1])))
        return as_role(dsn, names[-1])

    yield make
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def as_role(dsn: str, role: str) -> str:
    """Return the same address for another role."""
    where = urlsplit(dsn)
    return where._replace(netloc=f"{role}@{where.netloc.rpartition('@')[2]}").geturl()


@pytest.mark.parametrize("tier", [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD])
def test_what_waiting_does_not_mend(
    dsn: str, of_role: Callable[[str], str], work: Any, manager: LangGraphEventLoopManager, tier: Isolation
) -> None:
    """A role that may not log in, one that is not there, and no database: told at once, every time."""
    nobody = f"nobody_{uuid.uuid4().hex[:8]}"
    for where, told in (
        (as_role(dsn, nobody), f'role "{nobody}" does not exist'),
        (of_role("nologin"), "is not permitted to log in"),
        (urlsplit(dsn)._replace(path="/no_such_database").geturl(), 'database "no_such_database" does not exist'),
    ):
        pools = loop_local_pool(where, timeout=NEVER)
        graphs = LoopLocalGraph(work.building, checkpointer=loop_local_saver(pools), store=loop_local_store(pools))

        async def run(graphs: Any = graphs, told: str = told) -> None:
            with pytest.raises(PoolTimeout, match=told):
                await graphs.ainvoke(BEGIN, thread())
            await manager.executor.run(graphs.ainvoke, BEGIN, thread(), isolation=tier)

        with pytest.raises(PoolTimeout, match=told) as caught:
            go(run)
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)


def test_a_server_that_is_not_there(work: Any) -> None:
    """It may come: it is waited for, and the error says what was tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        where = f"postgresql://postgres@127.0.0.1:{taken.getsockname()[1]}/postgres"
        graphs = LoopLocalGraph(work.building, checkpointer=loop_local_saver(loop_local_pool(where, timeout=0.5)))
        with pytest.raises(PoolTimeout, match=r"after 0\.50 sec; PostgreSQL said: .*Connection refused"):
            go(graphs.ainvoke, BEGIN, thread())


def test_too_many_connections(of_role: Callable[[str], str]) -> None:
    """A pool that cannot grow says why; one that is merely used up says no more than it did."""
    limited = of_role("login connection limit 1")
    small = of_role("login")

    async def main() -> None:
        async with loop_local_pool(limited, timeout=0.5)() as pool, pool.connection():
            with pytest.raises(
                PoolTimeout, match=r"after 0\.50 sec; PostgreSQL said: .*too many connections for role"
            ):
                await pool.getconn()
        async with loop_local_pool(small, max_size=1, timeout=0.2)() as pool, pool.connection():
            with pytest.raises(PoolTimeout, match=r"^couldn't get a connection after 0\.20 sec$") as caught:
                await pool.getconn()
            assert caught.value.__cause__ is None

    go(main)


def test_one_who_is_cancelled(of_role: Callable[[str], str]) -> None:
    """Who gives up waiting for a first connection takes none along: the next one gets it."""
    where = of_role("login")

    async def main() -> None:
        async with loop_local_pool(where, max_size=1)() as pool:
            first = asyncio.ensure_future(pool.getconn())
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            async with pool.connection() as connection:
                assert await (await connection.execute("select 1 as one")).fetchone() == {"one": 1}
            assert pool.get_stats()["pool_size"] == 1

    go(main)
