"""Abandoned calls: those that nobody waits for any more and that may still run."""

import time
from dataclasses import dataclass
from typing import Any

from homeloop.runtime._call import Call
from homeloop.runtime._originals import RLock


@dataclass(frozen=True, slots=True)
class AbandonedCall:
    """
    A call that nobody waits for any more and that still runs.

    Attributes:
        what: The function's name.
        waiting_at: Where the coroutine was suspended when it was cancelled, outermost frame first; empty if its
            loop was blocked.
        since: When it was abandoned, in seconds of `time.monotonic`.
    """

    what: str
    waiting_at: tuple[str, ...]
    since: float


class Abandoned:
    """The abandoned calls of one runtime, on all loops that it has had. Thread: any."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = RLock()  # re-entered by signal handlers and finalizers
        self._calls: dict[Call[Any], AbandonedCall] = {}  # Any: of whatever result

    def add(self, call: Call[Any]) -> None:
        """Take note of a call, before its caller hears that it is abandoned."""
        with self._lock:
            self.total += 1
        self._calls[call] = AbandonedCall(call.name, call.waiting_at, time.monotonic())

    def remove(self, call: Call[Any]) -> bool:
        """Forget a call, which has ended; tell whether it was there, to one who asks and to no other."""
        return self._calls.pop(call, None) is not None

    def __contains__(self, call: Call[Any]) -> bool:
        return call in self._calls

    def records(self) -> tuple[AbandonedCall, ...]:
        """Return what there is, the oldest first."""
        return tuple(self._calls.copy().values())
