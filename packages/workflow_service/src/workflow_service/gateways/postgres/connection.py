"""How the gateways reach PostgreSQL: where a connection comes from, and what it does with JSON."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from workflow_service.ports import StoreUnavailableError

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

_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


async def prepare_connection(connection: Connection) -> None:
    """Make ``jsonb`` come back as Python objects. Pass this as ``init`` when opening a pool.

    Parameters go in as the text that `encode_json` makes: a value that is no JSON is then found before a
    statement begins, and as itself; raised inside a codec it would come out as asyncpg's DataError.
    """
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads, format="text")


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


def _storable(piece: str) -> str:
    if "\\u0000" in piece:
        piece = _ESCAPED_NUL.sub(r"\1\\ufffd", piece)
    return piece if piece.isascii() else _SURROGATE.sub("\ufffd", piece)


@asynccontextmanager
async def open_session(connect: Connect) -> AsyncIterator[Connection]:
    """Lend a connection for the body and translate the loss of the database.

    Raises:
        StoreUnavailableError: The database could not be reached or the connection broke. A transaction open
            in the body was rolled back, unless it broke in its COMMIT: then nobody knows.
    """
    try:
        async with connect() as connection:
            yield connection
    except _CONNECTION_LOST as error:
        raise _unavailable(str(error) or type(error).__name__) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if not any(words in str(error) for words in _ALSO_LOST):
            raise
        raise _unavailable("the server ended the session") from error


def _unavailable(reason: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"the database did not answer ({reason}); check DATABASE_URL and its server")
