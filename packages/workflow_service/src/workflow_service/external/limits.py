"""How often a service may be asked, and when it is left alone: per process, shared by all its loops and threads.

Neither class takes a lock: what must be exclusive is a token in a deque, and taking one is atomic. A lock of
`threading` is a greenlet's lock in a process that gevent or eventlet patched, and no good to a loop's thread.

The circuit breakers on PyPI count for one loop (purgatory) or are no longer kept (aiobreaker), and all let every
caller through once the pause is over; here one caller tries, and the others go on failing at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from workflow_service.external.faults import ServiceCallError

CIRCUIT_OPEN = "circuit-open"
"""The code of the error of a call that was not made because the service is left alone."""

Clock = Callable[[], float]


class RateLimit:
    """Lets ``count`` requests begin in any ``period`` seconds."""

    def __init__(self, count: int, period: float, clock: Clock = time.monotonic) -> None:
        """Start with all places free."""
        self._period = period
        self._clock = clock
        self._free_at: deque[float] = deque([float("-inf")] * count)

    async def wait(self) -> None:
        """Wait for a place. Who of those that wait gets the next one is left to chance.

        Nobody is promised a place beforehand: under load those who give up would have the places of the others,
        until nobody got one within the time that callers have.

        Cancellation: takes no place.
        """
        while True:
            try:
                free_at = self._free_at.popleft()
            except IndexError:  # other threads hold every place for an instant
                await asyncio.sleep(0)
                continue
            now = self._clock()
            if free_at <= now:
                self._free_at.append(now + self._period)
                return
            self._free_at.appendleft(free_at)
            await asyncio.sleep(free_at - now)


class CircuitBreaker:
    """Stops calls of a service that keeps failing, and lets one try once ``cooldown`` seconds are over."""

    def __init__(self, failures: int, cooldown: float, clock: Clock = time.monotonic) -> None:
        """Open after ``failures`` in a row."""
        self._failures = failures
        self._cooldown = cooldown
        self._clock = clock
        self._failed = 0
        self._opened_at: float | None = None
        self._probes: deque[None] = deque([None])

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self._opened_at is not None

    def enter(self) -> bool:
        """Begin a call; True if it is the one that tries whether the service is back.

        Every call that was let in ends with `leave`.

        Raises:
            ServiceCallError: The service is left alone for now.
        """
        opened_at = self._opened_at
        if opened_at is None:
            return False
        left = opened_at + self._cooldown - self._clock()
        if left <= 0:
            try:
                self._probes.popleft()
            except IndexError:
                left = 0.0
            else:
                return True
        raise ServiceCallError(
            f"it failed {self._failures} times in a row and is left alone; asked again in {max(left, 0.0):.0f} s",
            CIRCUIT_OPEN,
            is_transient=True,
            was_done=False,
        )

    def leave(self, is_probe: bool, *, has_failed: bool | None) -> None:
        """End a call; ``has_failed`` is None when nothing was learnt of the service: it was cancelled, say."""
        if has_failed is False:
            self._failed, self._opened_at = 0, None
        elif has_failed:
            self._failed += 1
            if is_probe or self._failed >= self._failures:
                self._opened_at = self._clock()
        if is_probe:
            self._probes.append(None)
