"""LangGraph's savers and stores on PostgreSQL, one per loop. Tested with langgraph-checkpoint-postgres 3.2."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.postgres.base import PostgresIndexConfig
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from homeloop import LoopLocal
from homeloop.adapters.langgraph._pool import TellingPool
from homeloop.adapters.langgraph._stores import batching

__all__ = ("PooledPostgresSaver", "loop_local_pool", "loop_local_saver", "loop_local_store", "set_up")

Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[DictRow]]

_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
"""What LangGraph asks of a connection. Any: psycopg types each option by itself."""

_SET_UP_LOCK = 6_201_874_459_071_213  # of sessions, by anybody who sets LangGraph's tables up this way
_SET_UP_POLL = 0.05  # seconds


class PooledPostgresSaver(AsyncPostgresSaver):
    """
    A saver whose calls do not wait for each other, only for a connection of its pool.

    A saver lets one call through at a time, which is right for one connection and not needed for a pool.
    Source: github.com/langchain-ai/langgraph/issues/7259
    """

    def __init__(self, conn: Pool, serde: SerializerProtocol | None = None) -> None:
        super().__init__(conn, serde=serde)
        self.lock = _OpenLock()


class _OpenLock(asyncio.Lock):
    """Lets everybody through."""

    async def acquire(self) -> Any:
        """Do not wait."""
        return True

    def release(self) -> None:
        """Do nothing."""


def loop_local_pool(conninfo: str, *, min_size: int = 1, max_size: int = 4, **options: Any) -> LoopLocal[Pool]:
    """
    Give every loop a pool with the connections that LangGraph asks for.

    When it has none to give, its `PoolTimeout` has PostgreSQL's own words. A wrong password, role or database is
    told at once; a server that is not there, or has too many connections, after the pool's ``timeout``, which is
    30 seconds.

    Args:
        conninfo: The database.
        min_size, max_size: Connections per loop.
        options: Further ones of `psycopg_pool.AsyncConnectionPool`; ``kwargs`` are added to LangGraph's own.
    """
    kwargs = {**_CONNECTION, **options.pop("kwargs", {})}

    def open_pool() -> Pool:
        return TellingPool(conninfo, min_size=min_size, max_size=max_size, kwargs=kwargs, open=False, **options)

    return LoopLocal(open_pool, name="LangGraph connection pool")


def loop_local_saver(
    where: str | LoopLocal[Pool], *, serde: SerializerProtocol | None = None, ensure_tables: bool = False
) -> LoopLocal[AsyncPostgresSaver]:
    """
    Give every loop a saver of its own, over a pool of its own.

    Args:
        where: The database; or pools, as of `loop_local_pool`, to have it share one with others.
        serde: LangGraph's serializer.
        ensure_tables: Call `set_up` first, once in the life of the process.
    """
    pools = loop_local_pool(where) if isinstance(where, str) else where
    tables = _Tables(ensure_tables)

    @asynccontextmanager
    async def open_saver() -> AsyncGenerator[AsyncPostgresSaver, None]:
        async with pools() as pool:
            await tables.ensure(pool)
            yield PooledPostgresSaver(pool, serde)

    return LoopLocal(open_saver, name="LangGraph saver")


def loop_local_store(
    where: str | LoopLocal[Pool], *, index: PostgresIndexConfig | None = None, ensure_tables: bool = False
) -> LoopLocal[AsyncPostgresStore]:
    """
    Give every loop a store of its own, over a pool of its own.

    Args:
        where: The database; or pools, as of `loop_local_pool`, to have it share one with others.
        index: LangGraph's configuration of semantic search.
        ensure_tables: Call `set_up` first, once in the life of the process.
    """
    pools = loop_local_pool(where) if isinstance(where, str) else where
    tables = _Tables(ensure_tables)

    @asynccontextmanager
    async def open_store() -> AsyncGenerator[AsyncPostgresStore, None]:
        async with pools() as pool:
            await tables.ensure(pool, index)
            async with AsyncPostgresStore(pool, index=index) as store, batching(store):
                yield store

    return LoopLocal(open_store, name="LangGraph store")


class _Tables:
    """Whether the tables are there, as far as one `LoopLocal` knows."""

    def __init__(self, ensure: bool) -> None:
        self._missing = ensure

    async def ensure(self, pool: Pool, index: PostgresIndexConfig | None = None) -> None:
        if self._missing:
            async with pool.connection() as connection:
                await _set_up(connection, index, timeout=60.0)
            self._missing = False


async def set_up(conninfo: str, *, index: PostgresIndexConfig | None = None, timeout: float = 60.0) -> None:
    """
    Make or migrate the tables of savers and stores; any number of processes may do this at once.

    LangGraph's own ``setup()`` is not safe against itself: two at once fail on each other's tables.

    Args:
        conninfo: The database.
        index: The stores' configuration of semantic search.
        timeout: Seconds to wait for others who do the same.

    Raises:
        TimeoutError: Others were not done in time. Nothing was done.
    """
    async with await AsyncConnection[DictRow].connect(conninfo, **_CONNECTION) as connection:
        await _set_up(connection, index, timeout)


async def _set_up(connection: AsyncConnection[DictRow], index: PostgresIndexConfig | None, timeout: float) -> None:
    async with _alone(connection, timeout):
        await AsyncPostgresSaver(connection).setup()
        async with AsyncPostgresStore(connection, index=index) as store, batching(store):
            await store.setup()


@asynccontextmanager
async def _alone(connection: AsyncConnection[DictRow], timeout: float) -> AsyncGenerator[None, None]:
    # Asked for again and again: LangGraph builds indexes concurrently, which waits for the statements of all
    # others, also for one that waits for the lock.
    deadline = time.monotonic() + timeout
    while True:
        row = await (
            await connection.execute("SELECT pg_try_advisory_lock(%s) AS got", (_SET_UP_LOCK,))
        ).fetchone()
        if row is not None and row["got"]:
            break
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"others have been setting up LangGraph's tables for {timeout} s; look what holds them"
            )
        await asyncio.sleep(_SET_UP_POLL)
    try:
        yield
    finally:
        if not connection.closed:  # a session that is gone holds no lock
            await connection.execute("SELECT pg_advisory_unlock(%s)", (_SET_UP_LOCK,))
