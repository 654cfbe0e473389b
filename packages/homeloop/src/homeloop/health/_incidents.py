"""The incidents: faults that events told of, remembered for a while."""

import time
from collections import Counter, deque
from collections.abc import Iterator

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
from homeloop._provenance import LoopFact
from homeloop.health._advice import ADVICE
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
            _incident(event, at, now - then)
            for then, at, event in reversed(self._recent.copy())
            if now - then <= seconds
        )


def _incident(event: Event, at: float, age: float) -> Incident:
    kind = KINDS[type(event)]
    return Incident(kind, _text(event), at, age, ADVICE[kind], _stack(event), tuple(_facts(event)))


def _text(event: Event) -> str:
    """Say what happened. The log has those without words of their own as data."""
    match event:
        case CallAbandoned():
            return f"{event.what} on {event.runtime!r} ignores its cancellation, and nobody waits for it any more"
        case CallbackFailed():
            return f"callback {event.what} of {event.home} failed: {event.error}"
        case ResourceCloseFailed():
            return f"{event.what} on {event.home} could not be closed, and was let go: {event.error}"
        case ResourceDropped():
            return (
                f"{event.what} on {event.home} was not closed: its loop was closed without ending what lived there"
            )
        case RuntimeDied():
            return f"the loop of {event.runtime!r} ended without having been told to: {event.reason}"
        case RuntimeStuck():
            return f"the loop of {event.runtime!r} did not end in time, and was left behind with its thread"
        case TaskLeft():
            return f"{event.what} was still there when the loop of {event.runtime!r} was closed, though cancelled"
        case WorkerLost():
            return f"worker {event.pid} of {event.executor!r} ended without having been told to"
        case _:
            return str(event)


def _stack(event: Event) -> tuple[str, ...]:
    match event:
        case CallAbandoned():
            return event.blocked_at or event.waiting_at
        case LoopBlocked() | LoopStalled() | RuntimeStuck():
            return event.blocked_at
        case TaskLeft() | TaskSpilled():
            return event.waiting_at
        case InterpreterStalled():
            return tuple(f"{name}: {frame}" for name, *frames in event.stacks for frame in frames)
        case _:
            return ()


def _facts(event: Event) -> Iterator[tuple[str, str]]:
    match event:
        case LoopFault():
            yield "what", event.what
            for name, place in (("used at", event.used_at), ("made at", event.made_at)):
                if place is not None:
                    yield name, str(place)
            for name, loop in (("lives on", event.owner), ("used from", event.current)):
                if loop is not None:
                    yield name, _loop_words(loop)
            yield "evidence", event.evidence
            yield "explained by", f"homeloop explain {event.kind}"
        case LoopBlocked() | LoopStalled():
            yield "name", event.name if isinstance(event, LoopStalled) else f"{event.what} in {event.context_id}"
            yield "loop", str(event.home)
            yield "seconds", f"{event.seconds:.1f}"
        case TaskSpilled():
            yield "created at", event.created_at
        case WorkerLost():
            yield "worker", f"pid {event.pid}" + (f", after {event.runs} runs" if event.runs is not None else "")
            yield "exit code", str(event.exitcode)
        case _:
            pass


def _loop_words(loop: LoopFact) -> str:
    where = f", thread {loop.thread!r}" if loop.thread else ""
    made = f", made at {loop.made_at}" if loop.made_at is not None else ""
    return f"{loop.kind}, {loop.state}{where}{made}"
