"""The tiers: how far apart a piece of work is kept, what it is, and what was seen of it."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from homeloop._affinity import Affinity
from homeloop._events import IsolatedRunEnded, IsolatedRunStarted, WorkPlace, emit, is_heard
from homeloop.runtime import get_ident, loop_affinity

if TYPE_CHECKING:
    from homeloop.isolation._progress import Progress


class Isolation(StrEnum):
    """
    How far a piece of work is kept apart from everything else.

    Each tier guarantees what those above it do, and more.
    """

    NONE = "none"
    """A plain await in the caller's task."""

    CONTEXT = "context"
    """Context variables and loop-bound resources of its own, and no task outlives it; the caller's loop."""

    THREAD = "thread"
    """A kept loop on a thread of its own: work that blocks stalls nobody else."""

    PROCESS = "process"
    """A kept process of its own: work that crashes takes nobody along, and can be killed."""

    AUTO = "auto"
    """Begin with `CONTEXT`, and go one tier further when this kind of work turns out to need it."""

    @classmethod
    def _missing_(cls, value: object) -> "Isolation":
        raise ValueError(f"isolation must be one of {', '.join(cls)}, got {value!r}")


@dataclass(slots=True)
class Signs:
    """What was seen of one run that tells how much isolation it needs."""

    spilled: int = 0  # tasks that outlived it
    spilled_by: Counter[str] = field(
        default_factory=Counter[str]
    )  # the same, by the function in whose run they began
    stubborn: int = 0  # of these, tasks that ignored their cancellation
    blocked: bool = False
    abandoned: bool = False
    begun: bool = False


@dataclass(slots=True, eq=False)
class Work:
    """
    One run: what is to be done, for whom.

    Attributes:
        carry: Context variables that go along to another process.
        loop_before: The caller's loop, if anybody wants to know.
        waited: Seconds that it has waited for a thread or a process, also in a tier that it could not cross to.
        signs: Filled in by the tier, before it returns or raises.
    """

    fn: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    name: str
    context_id: str
    tier: Isolation
    progress: "Progress"
    timeout: float | None
    carry: Sequence[ContextVar[Any]]
    signs: Signs = field(default_factory=Signs)
    loop_before: Affinity | None = field(default_factory=lambda: _affinity_if_heard())
    waited: float = 0.0
    _place: WorkPlace | None = None
    _started: float = 0.0

    @property
    def left(self) -> float | None:
        """What is left of the timeout, once it has waited for a thread or a process."""
        return None if self.timeout is None else max(0.0, self.timeout - self.waited)

    def start(self) -> None:
        """Note that the work begins in the caller's process, on the running loop, and tell."""
        self.signs.begun = True
        if self.loop_before is not None:
            self.start_at(get_ident(), os.getpid(), loop_affinity(asyncio.get_running_loop()))

    def start_at(self, thread_ident: int, pid: int, loop_after: Affinity) -> None:
        """Note where the work begins, and tell. Thread: any."""
        self.signs.begun = True
        if self.loop_before is None:
            return
        self._started = time.monotonic()
        self._place = WorkPlace(
            self.context_id, self.tier.value, self.name, thread_ident, pid, self.loop_before, loop_after
        )
        emit(IsolatedRunStarted(self._place))

    def end(self, error: BaseException | None) -> None:
        """Tell how the work ended, if it began."""
        if self._place is not None:
            failure = None if error is None else type(error).__name__
            emit(IsolatedRunEnded(self._place, time.monotonic() - self._started, failure))


def _affinity_if_heard() -> Affinity | None:
    return loop_affinity(asyncio.get_running_loop()) if is_heard(IsolatedRunStarted) else None


def scope_left(work: Work) -> RuntimeError:
    """Make the error of a run that was still waiting to begin when its scope was left."""
    return RuntimeError(
        f"scope {work.context_id!r} was left before {work.name} could begin, which was not called; "
        "await what runs in a scope before its end"
    )


class Errand:
    """What a tier does for a work: a callable that errors and events name after the work's own function."""

    def __init__(self, work: Work, do: Callable[[Work, bool], Awaitable[Any]], last: bool) -> None:
        self.__module__, _, name = work.name.partition(".")
        self.__qualname__ = name.removesuffix("()")
        self._work = work
        self._do = do
        self._last = last

    def __call__(self) -> Awaitable[Any]:
        return self._do(self._work, self._last)


class Room(Protocol):
    """Where the runs of one scope take place; made by a tier, closed by its last run or by `aclose`."""

    async def run(self, work: Work, last: bool) -> Any:
        """Do the work; leave the room with it, however it ends, if it is the last."""
        ...

    async def aclose(self) -> Signs:
        """Leave the room: end what is left in it, let go of what it was lent; tell what was left. Idempotent."""
        ...
