"""PgBouncer between: poolers of sessions are fine if one says so, others are refused before anything is done."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import asyncpg
import pytest

from homeloop import LoopRuntime, as_user
from homeloop.database import ConnectionPoolManager, get_service_connection, get_user_connection
from homeloop.errors import ConfigurationError

pytestmark = pytest.mark.needs("postgres", "pgbouncer")

BOUND = 10.0  # seconds
Pooler = Callable[[str, int], str]


@pytest.fixture
def patient_database(database: Any) -> Iterator[Any]:
    """The database; the server hears of the pooler's end a moment later."""
    yield database
    deadline = time.monotonic() + BOUND
    while database.connections():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def pooler(patient_database: Any, pgbouncer: Callable[..., str]) -> Iterator[Pooler]:
    """Start PgBouncer with a mode and a number of sessions; return the address of the database through it."""
    yield partial(pgbouncer, patient_database.dsn)
    ConnectionPoolManager.close()
    ConnectionPoolManager.configure()


async def as_alice() -> str:
    with as_user("alice"):
        async with get_user_connection() as connection:
            body: str = await connection.fetchval("SELECT string_agg(body, ',') FROM documents")
            await connection.execute("CREATE TEMPORARY TABLE loot AS SELECT * FROM documents")
            await connection.execute("SET search_path = pg_temp, public")
            return body


async def as_service() -> int:
    async with get_service_connection() as connection:
        number: int = await connection.fetchval("SELECT count(*) FROM pg_class WHERE relpersistence = 't'")
        return number


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_refused_unless_one_says_that_it_pools_sessions(
    mode: str, pooler: Pooler, runtime: LoopRuntime
) -> None:
    """By both doors, and the error says what to do."""
    dsn = pooler(mode, 1)
    ConnectionPoolManager.configure(dsn, service_dsn=dsn)
    for work in (as_alice, as_service):
        with pytest.raises(ConfigurationError, match=r"pooler.*configure\(pooler='session'\)"):
            runtime.run(work, timeout=BOUND)
    assert ConnectionPoolManager.get_metrics()["active_pools"] == 0


def test_a_pooler_of_sessions_is_as_good_as_none(pooler: Pooler, runtime: LoopRuntime) -> None:
    """Users one after the other and side by side see their own rows, and nothing that another one left."""
    dsn = pooler("session", 3)
    ConnectionPoolManager.configure(dsn, service_dsn=dsn, min_size=1, max_size=2, pooler="session")

    async def bob(number: int) -> int:
        with as_user("bob"):
            async with get_user_connection() as connection:
                assert await connection.fetchval("SHOW search_path") == '"$user", public'
                assert await connection.fetchval("SELECT array_agg(body) FROM documents") == ["of bob"]
                left: int = await connection.fetchval(
                    "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND oid > $1", number
                )
                return left

    async def main() -> None:
        assert await asyncio.gather(*(as_alice() for _ in range(10))) == ["of alice"] * 10
        assert await asyncio.gather(*(bob(number) for number in range(10))) == [0] * 10
        assert await as_service() == 0

    runtime.run(main, timeout=BOUND)
    ConnectionPoolManager.close()


def test_what_a_pooler_of_transactions_would_leave(pooler: Pooler) -> None:
    """Alice's temporary table and search path reach bob, who is another client: hence the refusal."""
    dsn = pooler("transaction", 1)

    async def main() -> str:
        alice = await asyncpg.connect(dsn, statement_cache_size=0)
        bob = await asyncpg.connect(dsn, statement_cache_size=0)
        async with alice.transaction():
            await alice.execute("CREATE TEMPORARY TABLE documents AS SELECT 'forged' AS body")
            await alice.execute("SET search_path = pg_temp, public")
        async with bob.transaction():
            read: str = await bob.fetchval("SELECT body FROM documents")
        await alice.close()
        await bob.close()
        return read

    assert asyncio.run(main()) == "forged"
