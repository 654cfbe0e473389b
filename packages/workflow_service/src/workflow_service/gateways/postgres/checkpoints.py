"""Where LangGraph keeps its checkpoints: the same database, through psycopg, in the schema ``workflow``."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias
from weakref import WeakSet

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from workflow_service.ports import StoreUnavailableError

_Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[DictRow]]

_LOCK = 7_094_823_517_160_043  # beside the migrator's
_OPEN_TIMEOUT = 30.0  # seconds for the first connection
_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
"""What LangGraph asks of a connection. Any: psycopg types each option by itself."""


class CheckpointPool(_Pool):
    """A pool whose connections report the loss of the database as the rest of the service does."""

    def __init__(self, dsn: str, max_size: int) -> None:
        self._alive: WeakSet[AsyncConnection[DictRow]] = WeakSet()
        super().__init__(
            dsn,
            kwargs=_CONNECTION,
            min_size=1,
            max_size=max_size,
            configure=self._prepare,
            check=_Pool.check_connection,  # the server may have closed it since
            open=False,
            name="checkpoints",
        )

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool and its connections, also when its own tasks have been cancelled.

        The owner of a loop that ends cancels all tasks first, the pool's workers too. psycopg_pool waits for
        them, takes their cancellation for its own and leaves its connections open.
        """
        try:
            await super().close(timeout)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            for connection in self._alive:
                await connection.close()

    async def _prepare(self, connection: AsyncConnection[DictRow]) -> None:
        self._alive.add(connection)
        await connection.execute("SET search_path TO workflow")

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Lend a connection; wait ``timeout`` seconds for a free one, None is the pool's own bound.

        Raises:
            StoreUnavailableError: The database could not be reached, or the connection broke in the body.
        """
        with _translated():
            async with super().connection(timeout) as connection:
                yield connection


@asynccontextmanager
async def open_checkpoint_pool(dsn: str, max_size: int) -> AsyncGenerator[CheckpointPool, None]:
    """Open a pool of at most ``max_size`` connections on the running loop, with LangGraph's tables in place.

    The schema ``workflow`` must exist. Any number of processes may do this at once.

    Raises:
        StoreUnavailableError: The database did not answer within 30 s.
    """
    pool = CheckpointPool(dsn, max_size)
    try:
        with _translated():
            await pool.open(wait=True, timeout=_OPEN_TIMEOUT)
            await _set_up(dsn, pool)
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def saver_on(pool: CheckpointPool) -> AsyncIterator[AsyncPostgresSaver]:
    """Give a run a saver of its own: a saver holds one lock, so runs that share it would wait for each other."""
    yield AsyncPostgresSaver(pool)


@contextmanager
def _translated() -> Iterator[None]:
    # OperationalError: what psycopg and its pool raise when the database is away, ends a session or is overrun.
    try:
        yield
    except OperationalError as error:
        reason = str(error) or type(error).__name__
        message = f"the database did not answer ({reason}); check DATABASE_URL and its server"
        raise StoreUnavailableError(message) from error


async def _set_up(dsn: str, pool: CheckpointPool) -> None:
    # LangGraph's set-up is not safe against itself, and it must not run in a transaction (it builds
    # indexes concurrently): so a lock of the session, on a connection of its own.
    async with await AsyncConnection.connect(dsn, autocommit=True) as guard:
        await guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        await AsyncPostgresSaver(pool).setup()
