"""What happened: records, and the protocol of those who want to hear of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from homeloop._affinity import Affinity
from homeloop._provenance import LoopFact, Place

logger = logging.getLogger("homeloop")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``level`` is the logging level it is reported at."""

    level: ClassVar[int] = logging.DEBUG


@dataclass(frozen=True, slots=True)
class RuntimeStarted(Event):
    """A runtime opened a loop on a thread; ``restarts`` counts the loops it lost before."""

    runtime: str
    home: Affinity
    restarts: int


@dataclass(frozen=True, slots=True)
class RuntimeStopped(Event):
    """A runtime's loop is closed, its tasks and resources with it."""

    runtime: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class RuntimeDied(Event):
    """A runtime's loop ended without having been told to."""

    level: ClassVar[int] = logging.ERROR
    runtime: str
    home: Affinity
    reason: str


@dataclass(frozen=True, slots=True)
class RuntimeStuck(Event):
    """A runtime's loop did not end in time; its thread was left alone."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    home: Affinity
    blocked_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallAbandoned(Event):
    """A call ignored its cancellation past the grace, or its loop was blocked: nobody waits for it any more."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    what: str
    waiting_at: tuple[str, ...]
    blocked_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CleanUpFailed(Event):
    """A cancelled call raised while it cleaned up, and nobody waits for it who could be told."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class TaskLeft(Event):
    """A task was still there when its loop was closed, though it had been cancelled."""

    level: ClassVar[int] = logging.WARNING
    runtime: str
    what: str
    waiting_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResourceOpened(Event):
    """A loop-bound resource was opened on its loop."""

    what: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class ResourceClosed(Event):
    """A loop-bound resource was closed on its loop."""

    what: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class ResourceCloseFailed(Event):
    """Closing a loop-bound resource raised or took too long; it was let go."""

    level: ClassVar[int] = logging.WARNING
    what: str
    home: Affinity
    error: str


@dataclass(frozen=True, slots=True)
class ResourceDropped(Event):
    """A loop was closed without its generators being shut down, so its resource could not be closed."""

    level: ClassVar[int] = logging.WARNING
    what: str
    home: Affinity


@dataclass(frozen=True, slots=True)
class GuardFailed(Event):
    """A product's guard did not work: its objects are handed out, but do not refuse another loop by themselves."""

    level: ClassVar[int] = logging.WARNING
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class MeasureFailed(Event):
    """A product's measure did not work: its pools are used as ever, but nobody is told how full they are."""

    level: ClassVar[int] = logging.WARNING
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class CallbackFailed(Event):
    """A bound callback raised, or its loop was gone."""

    level: ClassVar[int] = logging.ERROR
    what: str
    home: Affinity
    error: str


@dataclass(frozen=True, slots=True)
class CallbackRaised(CallbackFailed):
    """
    The same of one that was bound with ``on_error="raise"``: the error is the business of whoever awaits the call.

    So it may be an expected end, and is no incident; it is told all the same, as nobody need await the call.
    """

    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True)
class WorkPlace:
    """
    Where a piece of isolated work runs, or ran.

    Attributes:
        context_id: The name of its scope.
        tier: ``"none"``, ``"context"``, ``"thread"`` or ``"process"``.
        what: The function's name.
        thread_ident: The thread whose loop it runs on, in its own process.
        pid: The process.
        loop_before: The loop of whoever asked for the work.
        loop_after: The loop the work runs on.
    """

    context_id: str
    tier: str
    what: str
    thread_ident: int
    pid: int
    loop_before: Affinity
    loop_after: Affinity

    def __str__(self) -> str:
        return (
            f"[{self.tier} isolation] {self.what} in context {self.context_id!r}, "
            f"thread {self.thread_ident}, pid {self.pid}, loop before: {self.loop_before}, "
            f"loop after: {self.loop_after}"
        )


@dataclass(frozen=True, slots=True)
class IsolatedRunStarted(Event):
    """A piece of work begins in its tier."""

    place: WorkPlace

    def __str__(self) -> str:
        return f"{self.place}: started"


@dataclass(frozen=True, slots=True)
class IsolatedRunEnded(Event):
    """A piece of work has left its tier; ``error`` names the type of what it raised, if anything."""

    place: WorkPlace
    seconds: float
    error: str | None

    def __str__(self) -> str:
        outcome = f"failed with {self.error}" if self.error else "succeeded"
        return f"{self.place}: {outcome} after {self.seconds:.3f} s"


@dataclass(frozen=True, slots=True)
class TaskSpilled(Event):
    """
    A task outlived the isolated work that it was born in, and was cancelled.

    Attributes:
        task: Its name.
        created_at: The line that created it; where its coroutine is defined, if nobody saw that.
        waiting_at: Where it waited, outermost frame first.
        ended: Whether it ended in time; if not, it ignores its cancellation and was let go.
    """

    level: ClassVar[int] = logging.WARNING
    context_id: str
    tier: str
    what: str
    task: str
    created_at: str
    waiting_at: tuple[str, ...]
    ended: bool

    def __str__(self) -> str:
        fate = "it was cancelled and has ended" if self.ended else "it ignores its cancellation and was let go"
        return (
            f"[{self.tier} isolation] task {self.task!r}, created at {self.created_at}, outlived {self.what} in "
            f"context {self.context_id!r}; it was waiting at {' > '.join(self.waiting_at) or 'nothing'}; {fate}; "
            "await what you start before you return"
        )


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """Isolated work keeps its loop from running; ``blocked_at`` is the stack that does, outermost first."""

    level: ClassVar[int] = logging.WARNING
    context_id: str
    tier: str
    what: str
    home: Affinity
    seconds: float
    blocked_at: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"[{self.tier} isolation] {self.what} in context {self.context_id!r} has blocked {self.home} for "
            f"{self.seconds:.1f} s at {' > '.join(self.blocked_at)}; move what blocks to asyncio.to_thread()"
        )


@dataclass(frozen=True, slots=True)
class IsolationEscalated(Event):
    """A kind of work, left to homeloop's choice, will run in another tier from now on."""

    level: ClassVar[int] = logging.WARNING
    kind: str
    before: str
    after: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} runs in tier {self.after!r} instead of {self.before!r} from now on: {self.reason}"


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker process is ready for isolated work."""

    executor: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerEnded(Event):
    """A worker process has ended as it was told to."""

    executor: str
    pid: int
    runs: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerLost(Event):
    """A worker process ended without having been told to, or had to be killed."""

    level: ClassVar[int] = logging.WARNING
    executor: str
    pid: int
    runs: int
    exitcode: int | None


@dataclass(frozen=True, slots=True)
class LoopFault(Event):
    """
    Tracing saw an object used where it does not live, or left behind; see `homeloop.trace`.

    ``kind`` is the name of a finding, ``homeloop explain`` tells what it means.
    """

    level: ClassVar[int] = logging.WARNING
    kind: str
    what: str
    evidence: str
    used_at: Place | None = None
    made_at: Place | None = None
    owner: LoopFact | None = None
    current: LoopFact | None = None

    def __str__(self) -> str:
        used = "" if self.used_at is None else f", used at {self.used_at}"
        made = "" if self.made_at is None else f", made at {self.made_at}"
        return f"{self.kind}: {self.what}{used}{made}: {self.evidence}; homeloop explain {self.kind}"


@dataclass(frozen=True, slots=True)
class LoopStalled(Event):
    """
    A watched loop has not answered for a while.

    Attributes:
        name: Its runtime's, or the one it was watched under.
        seconds: How long it has not answered.
        blocked_at: The stack of its thread, outermost first.
        task: The task that runs there; None if it is no task that does.
    """

    level: ClassVar[int] = logging.WARNING
    name: str
    home: Affinity
    seconds: float
    blocked_at: tuple[str, ...]
    task: str | None

    def __str__(self) -> str:
        who = f" in task {self.task}" if self.task else ""
        return (
            f"{self.name!r}, {self.home}, has not run for {self.seconds:.1f} s; it is blocked{who} at "
            f"{' > '.join(self.blocked_at)}; move what blocks to asyncio.to_thread()"
        )


@dataclass(frozen=True, slots=True)
class LoopResumed(Event):
    """A watched loop that had stalled goes on; ``seconds`` is how long it did not run."""

    level: ClassVar[int] = logging.INFO
    name: str
    home: Affinity
    seconds: float

    def __str__(self) -> str:
        return f"{self.name!r}, {self.home}, goes on after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class InterpreterStalled(Event):
    """
    No Python code could run: something held the interpreter's lock, or the process was stopped.

    Attributes:
        seconds: For how long.
        stacks: What the threads were doing when that ended which did not seem to wait, or all if all did: name,
            then frames, outermost first.
    """

    level: ClassVar[int] = logging.WARNING
    seconds: float
    stacks: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        suspects = "; ".join(f"{name}: {' > '.join(frames)}" for name, *frames in self.stacks)
        return (
            f"no Python code has run for {self.seconds:.1f} s: the interpreter's lock was held, or the process "
            f"was stopped{f'; threads: {suspects}' if suspects else ''}"
        )


@dataclass(frozen=True, slots=True)
class HealthAssessed(Event):
    """
    The health monitor has looked at everything, as it does once an interval.

    Attributes:
        status: ``"healthy"``, ``"warning"`` or ``"critical"``.
        loops: How many there are.
        pending: Tasks on them that have not ended.
        langgraph: Those of them that LangGraph made.
        lag: Seconds that the slowest loop takes to answer, 99th percentile.
    """

    status: str
    loops: int
    pending: int
    langgraph: int
    lag: float

    def __str__(self) -> str:
        return (
            f"event loop health: {self.status}; {self.loops} loops, {self.pending} pending tasks, "
            f"{self.langgraph} of LangGraph, lag up to {self.lag * 1000:.1f} ms"
        )


@dataclass(frozen=True, slots=True)
class HealthWorsened(Event):
    """The health monitor found something that it had not found an interval before."""

    level: ClassVar[int] = logging.WARNING
    status: str
    findings: tuple[str, ...]

    def __str__(self) -> str:
        return f"event loop health: {self.status}: {'; '.join(self.findings)}"


@dataclass(frozen=True, slots=True)
class HealthRestored(Event):
    """The health monitor finds nothing wrong any more."""

    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        return "event loop health: healthy again"


class Instrument(Protocol):
    """Hears of every event, on the thread where it happened. Must return fast and must not call back."""

    def notify(self, event: Event) -> None:
        """Take note of the event."""
        ...


_instruments: tuple[Instrument, ...] = ()


def add_instrument(instrument: Instrument) -> Callable[[], None]:
    """
    Let an instrument hear of every event in this process.

    Returns:
        A function that takes it off again; calling it twice is harmless.

    Thread: any.
    """
    global _instruments
    _instruments = (*_instruments, instrument)

    def remove() -> None:
        global _instruments
        _instruments = tuple(each for each in _instruments if each is not instrument)

    return remove


def is_heard(kind: type[Event]) -> bool:
    """Tell whether anybody would hear of an event, which then may be worth being made."""
    return bool(_instruments) or logger.isEnabledFor(kind.level)


def emit(event: Event) -> None:
    """
    Log the event at its level, as text and as the record's ``homeloop``, and tell the instruments.

    An instrument's own error is logged, not raised.
    """
    if logger.isEnabledFor(event.level):
        logger.log(event.level, "%s", event, extra={"homeloop": event})
    for instrument in _instruments:
        try:
            instrument.notify(event)
        except Exception:
            logger.exception("instrument %r failed on %s", instrument, event)
