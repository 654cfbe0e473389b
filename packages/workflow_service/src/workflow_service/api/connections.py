"""Connections with a bound on whatever a client can keep the server waiting for.

uvicorn bounds what is idle between two requests, and nothing else: a client that sends its headers a byte a
minute, goes on with a body after the answer, or never reads, holds a connection for ever. uvicorn's ``--http``
takes this class. How long a body may take, `body_limit` decides, which can still answer.
"""

import asyncio
import logging
import resource
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT = 15.0
"""Seconds from a connection, or from the answer before, to the end of a request's headers."""

READ_TIMEOUT = 30.0
"""Seconds in which a client must read what fills the buffers, 48 KiB."""

AFTER_ANSWER = 5.0
"""Seconds in which a client must come to the end of a body that was answered before."""

_SHARE = 2
_FEWEST = 64

_logger = logging.getLogger(__name__)


def most_connections() -> int:
    """Return how many connections are held at once: half of the files that the process may have open.

    The others are for the database, the broker and uploads: without them nobody would be answered.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(_FEWEST, soft // _SHARE)


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with bounds."""

    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request; a connection too many is closed at once."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > most_connections():
            _logger.warning("a connection too many is refused: %d are open", len(self.connections) - 1)
            self.transport.abort()
            return
        self._wait(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take what has come."""
        super().handle_events()
        self._reconsider()

    def on_response_complete(self) -> None:
        """Go on to the next request, which may have come already."""
        super().on_response_complete()
        self._reconsider()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._stop_unread()
        self._unread = self.loop.call_later(READ_TIMEOUT, self._give_up, "does not read the answer")

    def resume_writing(self) -> None:
        """Note that it does."""
        self._stop_unread()
        super().resume_writing()

    def handle_websocket_upgrade(self, event: Any) -> None:  # Any: h11 ships no types
        """Hand the connection over."""
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def _reconsider(self) -> None:
        ours, theirs = self.conn.our_state, self.conn.their_state
        if ours is h11.IDLE and theirs is h11.IDLE:
            self._wait(HEAD_TIMEOUT)
        elif ours is h11.DONE and theirs is h11.SEND_BODY:
            self._wait(AFTER_ANSWER)
        else:
            self._stop_waiting()

    def _wait(self, timeout: float) -> None:
        if self._patience is not None or self.transport.is_closing():
            return  # a byte that comes does not make the wait longer
        self._patience = self.loop.call_later(timeout, self._give_up, "does not come to the end of a request")

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self, why: str) -> None:
        _logger.info("a connection is closed: the client %s", why)
        self.transport.abort()
