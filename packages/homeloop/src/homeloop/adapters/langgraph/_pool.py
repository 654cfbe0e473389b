"""A pool of psycopg connections that says, when it has none to give, what PostgreSQL has said."""

import asyncio
import re
import time
from typing import Any, TypeAlias

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

Connection: TypeAlias = AsyncConnection[DictRow]

# What waiting does not mend. libpq has no code for it (``sqlstate`` is None), only the server's words, which are
# in another language on some servers: there one waits as long as for anything else, and is told then.
_FINAL = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|not permitted to log in"
    r"|(role|database) .* does not exist|permission denied for database"
)


class TellingPool(AsyncConnectionPool[Connection]):
    """
    A pool whose `PoolTimeout` has PostgreSQL's words, and comes at once when waiting is of no use.

    Of no use is a wrong password, for instance, as long as the pool has not had a connection. A server that is not
    there, or has too many connections, may have one in a moment: that is waited for.
    """

    def __init__(
        self, conninfo: str, *, connection_class: type[Connection] = AsyncConnection[DictRow], **options: Any
    ) -> None:
        self._words = _Words()
        super().__init__(conninfo, connection_class=_telling(connection_class, self._words), **options)

    async def getconn(self, timeout: float | None = None) -> Connection:
        """
        Return a connection, as `AsyncConnectionPool.getconn`.

        Raises:
            PoolTimeout: There is none. Its cause is the last error of connecting, if there was one during the wait
                or shortly before: as long before as the wait took.
        """
        begun = time.monotonic()
        try:
            if self._words.has_connected:
                return await super().getconn(timeout)
            return await self._first(timeout)
        except PoolTimeout as error:
            said = self._words.since(2 * begun - time.monotonic())
            if said is None:
                raise
            raise PoolTimeout(f"{error}; PostgreSQL said: {said}") from said

    async def _first(self, timeout: float | None) -> Connection:
        """Wait for one of the first connections, unless all that are tried will be refused."""
        refused = asyncio.ensure_future(self._words.refused.wait())
        getting = asyncio.ensure_future(super().getconn(timeout))
        try:
            await asyncio.wait((getting, refused), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if await _has_ended_well(getting):
                await self.putconn(getting.result())
            raise
        finally:
            refused.cancel()
        if getting.done() or await _has_ended_well(getting):
            return getting.result()
        raise PoolTimeout("couldn't get a connection, and waiting does not help")


async def _has_ended_well(getting: "asyncio.Future[Connection]") -> bool:
    """Cancel a request for a connection; tell whether it has got one before."""
    getting.cancel()
    await asyncio.wait((getting,))
    return not getting.cancelled() and getting.exception() is None


class _Words:
    """What PostgreSQL has said to those who connect for one pool."""

    def __init__(self) -> None:
        self.has_connected = False
        self.refused = asyncio.Event()
        self._error: Exception | None = None  # the last one
        self._at = 0.0  # monotonic

    def since(self, when: float) -> Exception | None:
        """Return the last error of connecting, if it is not from before a moment, or is the last word."""
        is_final = self.refused.is_set() and not self.has_connected
        return self._error if is_final or self._at >= when else None

    def note_error(self, error: Exception) -> None:
        """Note that an attempt to connect has failed."""
        self._error, self._at = error, time.monotonic()
        if not self.has_connected and _FINAL.search(str(error)):
            self.refused.set()


def _telling(kind: type[Connection], words: _Words) -> type[Connection]:
    """Make a class of connections that notes how each attempt to connect ends; the pool has no hook for it."""

    class Telling(kind):  # type: ignore[valid-type, misc]
        @classmethod
        async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            try:
                connection = await super().connect(conninfo, **kwargs)
            except Exception as error:
                words.note_error(error)
                raise
            words.has_connected = True
            return connection

    Telling.__module__, Telling.__qualname__ = kind.__module__, kind.__qualname__
    return Telling
