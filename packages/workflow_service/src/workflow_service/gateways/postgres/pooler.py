"""A pooler such as PgBouncer between the service and PostgreSQL, which lends a session for one transaction."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, TypeAlias

import asyncpg

from workflow_service.ports import InvalidSettingError

if TYPE_CHECKING:
    from workflow_service.gateways.postgres.connection import Connection

    DriverConnection = asyncpg.Connection[asyncpg.Record]
else:
    DriverConnection = asyncpg.Connection

Pooler: TypeAlias = Literal["transaction"]
"""What may be said to stand between. Who is ready for a session of one transaction is ready for a longer one."""

# Not as a prepared statement: the first one that a pooler sees may fail already. A pooler makes up the number of
# the process that it tells its clients; the server tells its own.
_DIRECT = "SELECT 1 / (pg_catalog.pg_backend_pid() = {pid})::int"
_SESSION = "SELECT pg_catalog.pg_backend_pid()"
_LOOK_TIMEOUT = 3.0  # seconds
_OTHERS = 3
"""Clients that ask for a session. What was free last is lent first, unless the pooler is told otherwise."""

ADVICE = (
    "set WORKFLOW_DATABASE_POOLER=transaction, and WORKFLOW_DATABASE_DIRECT_URL to the address of the database "
    "itself"
)


class PooledConnection(DriverConnection):
    """A connection whose sessions are anybody's: nothing may be left in one, and no bound set there beforehand.

    Statements belong into transactions: only there is it sure that all of them, and what asyncpg asks by itself
    between preparing and executing, meet one session; and only there they have a bound.
    """

    idle_bound: int | None = None
    """Milliseconds that a transaction may stand idle before the server ends it."""


def idle_bound_of(connection: "Connection") -> int | None:
    """Return what a transaction must bring as its bound; None where the session has one."""
    bound: int | None = getattr(connection, "idle_bound", None)  # one of a pool's is a proxy
    return bound


async def is_pooled(connection: "Connection") -> bool:
    """Return whether the other end of a connection is a pooler, and not the server itself."""
    try:
        await connection.execute(_DIRECT.format(pid=connection.get_server_pid()))
    except asyncpg.DivisionByZeroError:
        return True
    return False


async def find_pooler(url: str) -> "Pooler | Literal['unknown'] | None":
    """Return what stands before the database at ``url``; ``unknown`` is a pooler that keeps its ways to itself.

    One of transactions gives itself away: the session of a client that waits is lent to another one.

    Raises:
        OSError, asyncpg.PostgresError, asyncpg.InterfaceError: The database is away.
    """
    with ExitStack() as stack:

        async def connect() -> DriverConnection:
            connection = await asyncpg.connect(
                url, timeout=_LOOK_TIMEOUT, command_timeout=_LOOK_TIMEOUT, statement_cache_size=0
            )
            stack.callback(connection.terminate)  # in the transactions that are open: a goodbye would have to wait
            return connection

        waiting = await connect()
        if not await is_pooled(waiting):
            return None
        async with waiting.transaction():
            session = await waiting.fetchval(_SESSION)
        try:
            for _ in range(_OTHERS):
                other = await connect()
                await other.execute("BEGIN")
                if await other.fetchval(_SESSION) == session:
                    return "transaction"
        except TimeoutError:
            pass  # a pooler of sessions has lent all that it has
        return "unknown"


async def refuse_pooler(connection: "Connection") -> None:
    """Look whether a new connection leads to the server itself.

    Through a pooler that nobody has told us of, prepared statements would be missing in one session and there
    twice in another, now and then.

    Raises:
        InvalidSettingError: It does not; the message says what to set.
    """
    if await is_pooled(connection):
        raise InvalidSettingError(f"a connection pooler, such as PgBouncer, stands before the database; {ADVICE}")


def refused_start(error: asyncpg.PostgresError) -> InvalidSettingError | None:
    """Return what it means that a connection was refused, if it is a pooler's refusal of how we begin it."""
    if "unsupported startup parameter" not in str(error):
        return None
    return InvalidSettingError(
        "a connection pooler, such as PgBouncer, stands before the database and refuses what the service tells "
        f"the database itself ({error}); {ADVICE}"
    )
