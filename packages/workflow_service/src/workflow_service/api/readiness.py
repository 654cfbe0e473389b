"""Which parts of the service can be used, asked at most once a second however many ask."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

_LIFETIME = 1.0  # seconds


class Readiness:
    """Keeps the answer for a second: anyone may ask, and each question costs a connection to the broker."""

    def __init__(self, check: Callable[[], Awaitable[Mapping[str, bool]]]) -> None:
        """Ask ``check``, one call at a time."""
        self._check = check
        self._lock = asyncio.Lock()
        self._checks: Mapping[str, bool] = {}
        self._valid_until = float("-inf")

    async def checks(self) -> Mapping[str, bool]:
        """Return for each part whether it can be used.

        Cancellation: the next who waits asks instead.
        """
        async with self._lock:
            if time.monotonic() >= self._valid_until:
                self._checks = await self._check()
                self._valid_until = time.monotonic() + _LIFETIME
            return self._checks
