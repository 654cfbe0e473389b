"""How the gateways reach PostgreSQL: where a connection comes from, and what it does with JSON."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from workflow_service.gateways.postgres.pooler import idle_bound_of, refused_start
from workflow_service.ports import DatabaseRightsError, StoreUnavailableError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Connection: TypeAlias = asyncpg.Connection

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]
"""Lends a connection of the running loop, prepared by `prepare_connection`: usually a pool's ``acquire``."""

_CONNECTION_LOST = (
    OSError,  # refused, reset, unreachable, and every time-out
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,  # the login is refused
    asyncpg.OperatorInterventionError,  # the server is starting, stopping, or an operator ended the session
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process stood still in a transaction
)

_ALSO_LOST = (
    "connection is closed",
    "connection has been released back to the pool",  # which the pool does with one that is closed
    "cannot switch to state",  # the server's farewell was read, its close not yet
)
"""How asyncpg says that a connection is lost with the classes it also uses for faults of the caller."""

_ROLLBACK_TIMEOUT = 1.0  # seconds, for the cancellation of a statement under way before it, too

_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_SMALL = 200  # items of containers: encoding them takes about as long as to go to a thread and back
_CHARACTERS = 1000  # of a string, that count as an item


async def prepare_connection(connection: Connection) -> None:
    """Make ``jsonb`` come back as Python objects. Pass this as ``init`` when opening a pool.

    Parameters go in as the text that `encode_json` makes: a value that is no JSON is then found before a
    statement begins, and as itself; raised inside a codec it would come out as asyncpg's DataError.
    """
    async with connection.transaction():  # it asks the server: behind a pooler it must be one session that answers
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=str, decoder=json.loads, format="text"
        )


def encode_json(value: Any) -> str:  # Any: whatever json.dumps takes
    """Return ``value`` as JSON text that PostgreSQL can store.

    PostgreSQL stores neither NUL nor lone surrogates. What users send is refused for them at the edge; in what
    workflows make (the text of a damaged document) each becomes U+FFFD, so that places in the text stay right.

    Raises:
        ValueError: ``value`` holds NaN or an infinity, which JSON cannot express.
        TypeError: ``value`` holds what is not JSON.
    """
    # Piece by piece: json.dumps keeps the interpreter to itself until the end, also on a thread; 28 MB stopped
    # the loop for a second. A string is one piece, so an escape is never cut.
    return "".join(map(_storable, _ENCODER.iterencode(value)))


async def encode_json_aside(value: Any) -> str:  # Any: whatever json.dumps takes
    """Return and raise as `encode_json`; a large value is encoded on a thread, and the loop goes on meanwhile."""
    return encode_json(value) if _is_small(value) else await asyncio.to_thread(encode_json, value)


def _is_small(value: Any) -> bool:  # Any: whatever json.dumps takes
    room, left = _SMALL, [value]
    while left and room > 0:
        item = left.pop()
        if isinstance(item, str):
            room -= len(item) // _CHARACTERS
        elif isinstance(item, (dict, list, tuple)):
            room -= len(item)
            if room > 0:
                left.extend(item.values() if isinstance(item, dict) else item)
    return room > 0


def _storable(piece: str) -> str:
    if "\\u0000" in piece:
        piece = _ESCAPED_NUL.sub(r"\1\\ufffd", piece)
    return piece if piece.isascii() else _SURROGATE.sub("\ufffd", piece)


@asynccontextmanager
async def open_session(connect: Connect, user_id: str) -> AsyncIterator[Connection]:
    """Lend a connection for one transaction that sees the rows of ``user_id`` and nobody else's.

    The database sees to that (row level security), whatever the statements say: another user's row is not there,
    and writing one raises ``asyncpg.InsufficientPrivilegeError``. The body is the transaction, and begins none of
    its own: it commits at the end and rolls back when the body raises.

    Raises:
        StoreUnavailableError: As `open_connection`.
        DatabaseRightsError: Row security does not bind the role that DATABASE_URL names; nothing was done.
    """
    async with _open_scope(connect, "user", user_id) as connection:
        yield connection


@asynccontextmanager
async def open_service_session(connect: Connect) -> AsyncIterator[Connection]:
    """Lend a connection for one transaction that sees the runs of all users and their events, webhooks that are to
    be sent, answers that have expired, and nothing else.

    For what belongs to no user: to claim a run, to find those that were lost. Whoever knows the user takes
    `open_session`. Raises as that does.
    """
    async with _open_scope(connect, "service", "") as connection:
        yield connection


@asynccontextmanager
async def open_key_session(connect: Connect, prefix: str) -> AsyncIterator[Connection]:
    """Lend a connection for one transaction that sees one API key and nothing else. Raises as `open_session`."""
    async with _open_scope(connect, "key", prefix) as connection:
        yield connection


@asynccontextmanager
async def open_operator_session(connect: Connect) -> AsyncIterator[Connection]:
    """Lend a connection for one transaction that sees the API keys of all users. Raises as `open_session`."""
    async with _open_scope(connect, "operator", "") as connection:
        yield connection


@asynccontextmanager
async def _open_scope(connect: Connect, scope: str, subject: str) -> AsyncIterator[Connection]:
    async with open_connection(connect) as connection:
        try:
            await _begin(connection, scope, subject)
            yield connection
        except BaseException:
            await _roll_back(connection)
            raise
        await connection.execute("COMMIT")


async def _roll_back(connection: Connection) -> None:
    """End the transaction, by closing the connection if need be: what the body raised is not lost for that.

    It may be a cancellation, and its owner waits; the server may be silent, which is why it was cancelled.
    """
    try:
        if not connection.is_closed():
            async with asyncio.timeout(_ROLLBACK_TIMEOUT):
                await connection.execute("ROLLBACK")
    except Exception:
        with suppress(asyncpg.InterfaceError):  # it is closed, and the pool's again
            connection.terminate()


async def _begin(connection: Connection, scope: str, subject: str) -> None:
    # In one round trip, which asyncpg's own transactions take for BEGIN alone. Parameters cannot travel so, and
    # what stands for them holds hexadecimal digits only, whatever the subject is.
    begin = f"BEGIN; SELECT workflow.enter_scope({_as_literal(scope)}, {_as_literal(subject)})"
    bound = idle_bound_of(connection)
    if bound is not None:
        begin += f"; SET LOCAL idle_in_transaction_session_timeout = {bound}"
    try:
        await connection.execute(begin)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseRightsError(" ".join(str(error).split())) from error  # with its hint


def _as_literal(text: str) -> str:
    return f"convert_from('\\x{text.encode().hex()}', 'UTF8')"


@asynccontextmanager
async def open_connection(connect: Connect) -> AsyncIterator[Connection]:
    """Lend a connection for the body and translate the loss of the database.

    It enters no scope, so it sees no rows of users: for what belongs to none (migrations, health). It begins no
    transaction either, and behind a pooler statements must be in one.

    Raises:
        InvalidSettingError: A pooler stands between, and no setting says so.
        StoreUnavailableError: The database could not be reached or the connection broke. A transaction open
            in the body was rolled back, unless it broke in its COMMIT: then nobody knows.
    """
    try:
        async with connect() as connection:
            yield connection
    except asyncpg.ProtocolViolationError as error:
        raise refused_start(error) or error from error
    except _CONNECTION_LOST as error:
        raise _unavailable(str(error) or type(error).__name__) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if not any(words in str(error) for words in _ALSO_LOST):
            raise
        raise _unavailable("the server ended the session") from error


def _unavailable(reason: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"the database did not answer ({reason}); check DATABASE_URL and its server")
