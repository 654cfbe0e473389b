"""Where LangGraph keeps its checkpoints: the same database, through psycopg, in the schema ``workflow``."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

CheckpointPool: TypeAlias = AsyncConnectionPool[AsyncConnection[DictRow]]

_LOCK = 7_094_823_517_160_043  # beside the migrator's
_OPEN_TIMEOUT = 30.0  # seconds for the first connection
_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
"""What LangGraph asks of a connection. Any: psycopg types each option by itself."""


@asynccontextmanager
async def open_checkpoint_pool(dsn: str, max_size: int) -> AsyncGenerator[CheckpointPool, None]:
    """Open a pool of at most ``max_size`` connections on the running loop, with LangGraph's tables in place.

    The schema ``workflow`` must exist. Any number of processes may do this at once.

    Raises:
        psycopg_pool.PoolTimeout: The database did not answer within 30 s.
    """
    pool: CheckpointPool = AsyncConnectionPool(
        dsn,
        kwargs=_CONNECTION,
        min_size=1,
        max_size=max_size,
        configure=_use_schema,
        open=False,
        name="checkpoints",
    )
    await pool.open(wait=True, timeout=_OPEN_TIMEOUT)
    try:
        await _set_up(dsn, pool)
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def saver_on(pool: CheckpointPool) -> AsyncIterator[AsyncPostgresSaver]:
    """Give a run a saver of its own: a saver holds one lock, so runs that share it would wait for each other."""
    yield AsyncPostgresSaver(pool)


async def _use_schema(connection: AsyncConnection[DictRow]) -> None:
    await connection.execute("SET search_path TO workflow")


async def _set_up(dsn: str, pool: CheckpointPool) -> None:
    # LangGraph's set-up is not safe against itself, and it must not run in a transaction (it builds
    # indexes concurrently): so a lock of the session, on a connection of its own.
    async with await AsyncConnection.connect(dsn, autocommit=True) as guard:
        await guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        await AsyncPostgresSaver(pool).setup()
