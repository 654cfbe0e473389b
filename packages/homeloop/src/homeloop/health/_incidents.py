"""The incidents: faults that events told of, remembered for a while."""

import time
from collections import Counter, deque

from homeloop._events import (
    CallAbandoned,
    CallbackFailed,
    Event,
    InterpreterStalled,
    LoopBlocked,
    LoopFault,
    LoopStalled,
    ResourceCloseFailed,
    ResourceDropped,
    RuntimeDied,
    RuntimeStuck,
    TaskLeft,
    TaskSpilled,
    WorkerLost,
)
from homeloop.health._report import Incident
from homeloop.runtime import RLock

KINDS: dict[type[Event], str] = {
    CallAbandoned: "call-abandoned",
    CallbackFailed: "callback-failed",
    InterpreterStalled: "interpreter-stalled",
    LoopBlocked: "loop-blocked",
    LoopFault: "loop-fault",
    LoopStalled: "loop-blocked",
    ResourceCloseFailed: "resource-lost",
    ResourceDropped: "resource-lost",
    RuntimeDied: "runtime-lost",
    RuntimeStuck: "runtime-lost",
    TaskLeft: "task-left",
    TaskSpilled: "task-left",
    WorkerLost: "worker-lost",
}
"""Events that are faults, and the finding that each leads to."""

_MOST = 200  # incidents that are remembered


class Incidents:
    """What events told of. Thread: any."""

    def __init__(self) -> None:
        self._lock = RLock()  # an event may happen in a signal handler
        self._counts: Counter[str] = Counter()
        self._recent: deque[tuple[float, float, Event]] = deque(maxlen=_MOST)

    def note(self, event: Event) -> None:
        """Remember an event, if it is a fault; count it in any case."""
        with self._lock:
            self._counts[type(event).__name__] += 1
        if type(event) in KINDS:
            self._recent.append((time.monotonic(), time.time(), event))

    def counts(self) -> dict[str, int]:
        """Return how often each kind of event happened, by its name."""
        with self._lock:
            return dict(self._counts)

    def recent(self, seconds: float) -> tuple[Incident, ...]:
        """Return the faults of the last so many seconds, the latest first."""
        now = time.monotonic()
        return tuple(
            Incident(KINDS[type(event)], str(event), at, now - then)
            for then, at, event in reversed(self._recent.copy())
            if now - then <= seconds
        )
