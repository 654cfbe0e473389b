"""Wake-ups for those who follow a run, from PostgreSQL's NOTIFY over one connection."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

import asyncpg

from workflow_service.gateways.postgres.runs import CHANNEL

if TYPE_CHECKING:
    ListeningConnection = asyncpg.Connection[asyncpg.Record]

APPLICATION_NAME = "workflow_service run feed"
"""How the feed's connection shows in pg_stat_activity."""

_CONNECT_TIMEOUT = 10.0
_PROBE_INTERVAL = 30.0  # seconds; a peer that vanished without a word is noticed after this and the time-out
_PROBE_TIMEOUT = 10.0
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 10.0
# The last is how asyncpg says, now and then, that a server was killed in the middle of an answer.
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_logger = logging.getLogger(__name__)


class PostgresRunFeed:
    """Fits the RunFeed port. Enter it on the loop that will use it; it keeps one connection of its own.

    When its connection breaks it connects again, and then wakes everybody: what happened meanwhile is unknown.
    """

    def __init__(self, dsn: str, channel: str = CHANNEL) -> None:
        """Listen to the database at ``dsn``, once entered; ``channel`` is one whose payloads are run ids.

        ``dsn`` must not lead through a pooler of transactions: who listens there hears nothing.
        """
        self._dsn = dsn
        self._channel = channel
        self._changes: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._connection: ListeningConnection | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect and listen; from then on a lost connection is replaced.

        Raises:
            OSError, asyncpg.PostgresError: The first connection failed. Nothing is left open.
        """
        self._connection = await self._listen()
        self._keeper = asyncio.create_task(self._keep_listening(self._connection), name="run feed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection. Those who still wait get no more wake-ups."""
        assert self._keeper is not None
        self._keeper.cancel()
        try:
            await asyncio.wait([self._keeper])
        finally:
            # Not by the keeper: a task that is cancelled before its first step never runs its finally.
            if self._connection is not None:
                self._connection.terminate()

    @asynccontextmanager
    async def watch(self, run_id: UUID) -> AsyncIterator[Callable[[float], Awaitable[bool]]]:
        """Yield ``wait(timeout)``: True after a change since the last wait, False after ``timeout`` seconds."""
        changed = asyncio.Event()

        async def wait(timeout: float) -> bool:
            try:
                async with asyncio.timeout(timeout):
                    await changed.wait()
            except TimeoutError:
                return False
            changed.clear()
            return True

        self._changes[run_id].add(changed)
        try:
            yield wait
        finally:
            self._changes[run_id].discard(changed)
            if not self._changes[run_id]:
                del self._changes[run_id]

    async def _listen(self) -> "ListeningConnection":
        connection = await asyncpg.connect(
            self._dsn, timeout=_CONNECT_TIMEOUT, server_settings={"application_name": APPLICATION_NAME}
        )
        try:
            await connection.add_listener(self._channel, self._on_notification)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _keep_listening(self, connection: "ListeningConnection") -> None:
        while True:
            await _wait_until_lost(connection)
            connection.terminate()
            _logger.warning("run feed: the connection is lost; connecting again")
            self._connection = connection = await self._listen_again()
            self._wake_everybody()

    async def _listen_again(self) -> "ListeningConnection":
        backoff = _FIRST_BACKOFF
        while True:
            try:
                return await self._listen()
            except _AWAY as error:
                _logger.warning("run feed: no connection (%s); next attempt in %.1f s", error, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF)

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            run_id = UUID(str(payload))
        except ValueError:
            _logger.warning("run feed: a notification that is no run id: %r", payload)
            return
        for changed in self._changes.get(run_id, ()):
            changed.set()

    def _wake_everybody(self) -> None:
        for watchers in self._changes.values():
            for changed in watchers:
                changed.set()


async def _wait_until_lost(connection: "ListeningConnection") -> None:
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _connection: lost.set())
    while not connection.is_closed():
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_INTERVAL):
                await lost.wait()
            return
        try:
            await connection.execute("SELECT 1", timeout=_PROBE_TIMEOUT)
        except _AWAY:
            return
