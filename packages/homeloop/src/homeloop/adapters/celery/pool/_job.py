"""One Celery task on its way through the asyncio pool."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from billiard.einfo import ExceptionInfo
from celery.exceptions import Terminated, WorkerLostError

from homeloop.adapters.celery._body import current_body
from homeloop.adapters.celery._handles import Handle
from homeloop.adapters.celery._task import do_postponed
from homeloop.adapters.celery._tracer import Steps
from homeloop.adapters.celery.pool._threads import Alarm


class HardLimitError(Exception):
    """Why a job's coroutine is ended: its hard time limit."""


class RunsJobs(Protocol):
    """What runs jobs' coroutines on a loop."""

    def begin(self, job: "Job") -> None: ...

    def cancel(self, job: "Job") -> None: ...

    def stuck_at(self, job: "Job") -> str: ...


class Job:
    """
    What the pool knows of a task. Celery holds it weakly, and may `terminate` it.

    Attributes:
        pid: What Celery takes for the process that runs the task; a number of the pool's own.
        steps: Its way through Celery's tracer; None if it runs on a thread from start to end.
        ending: Why what its coroutine does does not count any more: `HardLimitError` or Terminated.
        is_cancelled: Whether the loop has cancelled its coroutine for that.
        told: Whether Celery has been told of that.
        value, error: What became of its coroutine.
        lost: Why that is not known: the loop has ended under it.
        postponed: What its coroutine wants to be sent as soon as it has ended.
        bodies: Where its coroutine runs.
        handle: How to end its coroutine if it runs on a thread from start to end.
        next: Another attempt of the same task, which begins when this one has left the pool.
    """

    __slots__ = (
        "__weakref__", "_decided", "_end", "_function", "accepted_at", "alarm", "bodies", "callbacks", "context",
        "ending", "error", "handle", "hard_limit", "id", "is_cancelled", "lost", "message", "name", "next",
        "pid", "postponed", "soft_limit", "steps", "target", "told", "value",
    )  # fmt: skip

    def __init__(
        self,
        pid: int,
        target: Callable[..., Any],
        message: tuple[Any, ...],
        callbacks: "Callbacks",
        limits: tuple[float | None, float | None],
        end: "Callable[[Job, BaseException], None]",
        context: Context,
    ) -> None:
        self.pid = pid
        self.target = target
        self.message = message
        self.name, self.id = message[0], message[1]
        self.callbacks = callbacks
        self.soft_limit, self.hard_limit = limits
        self.context = context
        self.accepted_at = 0.0  # monotonic
        self.alarm: Alarm | None = None
        self.steps: Steps | None = None
        self.ending: BaseException | None = None
        self.is_cancelled = False
        self.told = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.postponed: list[Callable[[], object]] = []
        self.lost: WorkerLostError | None = None
        self.handle: Handle | None = None
        self.bodies: RunsJobs | None = None
        self.next: Job | None = None
        self._function: Any = None
        self._end = end
        self._decided = threading.Lock()

    def split(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> Steps:
        """Take the coroutine out of what the tracer does; return the rest."""
        self._function = function
        self.steps = Steps(self.target, self.message)
        return self.steps

    def make_coroutine(self) -> Coroutine[Any, Any, Any]:
        """Call the task's function. Thread: the loop's."""
        assert self.steps is not None
        current_body.set(self)
        return self._function(*self.steps.args, **self.steps.kwargs)  # type: ignore[no-any-return]

    def replay(self) -> Any:
        """Return or raise what the coroutine did, once."""
        do_postponed(self.postponed)
        error, value = self.error, self.value
        self.error = self.value = None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # or the traceback's frame and the error would keep each other alive

    def decide(self) -> bool:
        """Tell whether what becomes of the job is the caller's to say: the first one's. Thread: any."""
        return self._decided.acquire(blocking=False)

    @property
    def is_decided(self) -> bool:
        """Whether what becomes of the job is being said: its coroutine has ended, or is made to."""
        return self._decided.locked()

    def terminate(self, signal: Any = None) -> None:
        """End the job for good; called by Celery to revoke a running task, or when a worker shuts down coldly."""
        self._end(self, Terminated(signal))


class Callbacks:
    """How Celery is told of a job: the four functions that it gives a pool with it. They are not thread-safe."""

    __slots__ = ("_accepted", "_done", "_failed", "_timed_out")

    def __init__(self, accepted: Any = None, done: Any = None, failed: Any = None, timed_out: Any = None) -> None:
        self._accepted = accepted or _nothing
        self._done = done or _nothing
        self._failed = failed or _nothing
        self._timed_out = timed_out or _nothing

    def is_revoked(self) -> bool:
        """Tell whether the task was revoked, or has expired, while it waited; Celery has announced it then."""
        request = getattr(self._accepted, "__self__", None)
        return request is not None and request.revoked()

    def accept(self, pid: int, now: float) -> None:
        """Tell that the job begins."""
        self._accepted(pid, now)

    def finish(self, result: Any) -> None:
        """Tell what the tracer has made of it."""
        self._done(result)

    def fail(self, error: BaseException) -> None:
        """Tell of an end that the tracer knows nothing of."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            # Celery says so itself since 5.7; before that it tried to store what no serialiser takes.
            code = f"exitcode {error.code}" if isinstance(error, SystemExit) else type(error).__name__
            error = WorkerLostError(f"Worker exited prematurely: {code}.")
        self._failed(_info(error))

    def warn(self, limit: float | None) -> None:
        """Tell that the soft time limit was reached."""
        self._timed_out(True, limit)

    def time_out(self, limit: float | None) -> None:
        """Tell that the hard time limit was reached; Celery stores the failure."""
        self._timed_out(False, limit)


def _info(error: BaseException) -> ExceptionInfo:
    try:
        raise error  # one that was made elsewhere has no traceback, which Celery expects
    except BaseException:
        return ExceptionInfo()
    finally:
        del error


def _nothing(*_: Any) -> None:
    """Nobody wants to know."""
