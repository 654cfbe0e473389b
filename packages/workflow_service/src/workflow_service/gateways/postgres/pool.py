"""Connections to PostgreSQL, with a bound on whatever either side could wait for."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import asyncpg

from workflow_service.gateways.postgres.connection import Connection, prepare_connection
from workflow_service.gateways.postgres.pooler import PooledConnection, Pooler, refuse_pooler

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Pool: TypeAlias = asyncpg.Pool

# A server that takes connections and never says a word (its machine hangs) is noticed by these alone.
_CONNECT_TIMEOUT = 10.0  # seconds, for a new connection
_ACQUIRE_TIMEOUT = 10.0  # seconds, for a free connection of the pool or a new one
_COMMAND_TIMEOUT = 15.0  # seconds, for one statement
_SESSION_TIMEOUT = 20.0  # seconds, for all statements; ROLLBACK after a time-out has no bound in asyncpg
_RELEASE_TIMEOUT = 1.0  # seconds, to make a connection fit for the next borrower

_logger = logging.getLogger(__name__)


def open_pool(dsn: str, max_size: int, lease: float, pooler: Pooler | None = None) -> Pool:
    """Return a pool of at most ``max_size`` connections, to be entered on the loop that will use it.

    Entering it, and whoever makes it open a connection, raises InvalidSettingError where a pooler stands between
    and ``pooler`` does not say so.

    Args:
        dsn: The database.
        max_size: Connections at most.
        lease: Seconds after which the server ends a connection whose owner fell silent in a transaction. A
            worker that is frozen there holds the lock on its run's row; nobody else could take the run, however
            long its lease is over.
        pooler: What stands between. Through one, statements must be in transactions.
    """
    milliseconds = max(1, round(lease * 1000))

    async def prepare(connection: Connection) -> None:
        if pooler is None:
            await refuse_pooler(connection)
        else:  # not told by isinstance: for asyncpg each connection is one of any of its classes
            cast("PooledConnection", connection).idle_bound = milliseconds
        await prepare_connection(connection)

    create = partial(
        asyncpg.create_pool,
        dsn,
        min_size=1,
        max_size=max_size,
        init=prepare,
        reset=_leave,
        timeout=_CONNECT_TIMEOUT,
        command_timeout=_COMMAND_TIMEOUT,
    )
    if pooler is not None:
        return create(connection_class=PooledConnection, statement_cache_size=0)
    return create(
        server_settings={
            "idle_in_transaction_session_timeout": str(milliseconds),
            "tcp_user_timeout": str(milliseconds),  # frozen with an answer on its way that fills the socket
        },
    )


async def _leave(_connection: Connection) -> None:
    """Do nothing: what a session sets ends with its transaction. RESET ALL would be a round trip for nothing."""


@asynccontextmanager
async def lend(pool: Pool) -> AsyncGenerator[Connection, None]:
    """Lend a connection of ``pool`` for the body, which has 20 s.

    Raises:
        TimeoutError: No connection was to be had within 10 s, or the body took longer than its time.

    Cancellation: takes at most a second beside the body's own clean-up; a connection whose statement cannot be
    cancelled by then is closed.
    """
    connection = await pool.acquire(timeout=_ACQUIRE_TIMEOUT)
    try:
        async with asyncio.timeout(_SESSION_TIMEOUT):
            yield connection
    finally:
        try:
            await pool.release(connection, timeout=_RELEASE_TIMEOUT)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # The pool has closed it. What the body did stands: its outcome is not to be lost for this.
            _logger.warning("a database connection was closed: %r", error)
