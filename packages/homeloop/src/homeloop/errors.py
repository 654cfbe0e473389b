"""
Every error homeloop raises.

HomeloopError
├── AffinityError               an object was used where it does not live
│   ├── WrongLoopError          (RuntimeError)
│   └── WrongThreadError        (RuntimeError)
├── LifecycleError              a runtime or a loop could not do what it was asked
│   ├── CallTimeoutError        (TimeoutError)
│   ├── DeadlockError           (RuntimeError)
│   ├── LoopEndingError         (RuntimeError)
│   ├── OverloadedError         (RuntimeError)
│   ├── RuntimeClosedError      (RuntimeError)
│   │   └── ExecutorClosedError
│   ├── RuntimeDiedError        (RuntimeError)
│   └── ScopeEndedError         (RuntimeError)
├── UserError                   a connection cannot be, or was not, one user's alone
│   ├── MissingUserError        (LookupError)
│   ├── UnsafeRoleError         (RuntimeError)
│   └── UserScopeError          (RuntimeError)
├── IsolationError              isolated work could not be carried over, or was lost with its worker
│   ├── NotTransferableError    (TypeError)
│   ├── RemoteError             (RuntimeError)
│   ├── WorkerDiedError         (RuntimeError)
│   └── WorkerStartError        (RuntimeError)
├── AdapterError                (RuntimeError) a product is not in the shape an adapter needs
│   ├── LeaseLostError          a task is another worker's now
│   ├── SelfCancelledError      a task's coroutine ended with a cancellation that nobody had asked for
│   ├── TaskLostError           a task has lost its worker too often
│   └── UserContextError        a task's user cannot be sealed, or was tampered with
└── ConfigurationError          (RuntimeError) something must be said, or stopped, before it can be done

Fields are plain data and ``args`` mirror the constructor, so every error survives pickle and with
it a Celery result or a process boundary.
"""

import signal

__all__ = (
    "AdapterError",
    "AffinityError",
    "CallTimeoutError",
    "ConfigurationError",
    "DeadlockError",
    "ExecutorClosedError",
    "HomeloopError",
    "IsolationError",
    "LeaseLostError",
    "LifecycleError",
    "LoopEndingError",
    "MissingUserError",
    "NotTransferableError",
    "OverloadedError",
    "RemoteError",
    "RuntimeClosedError",
    "RuntimeDiedError",
    "ScopeEndedError",
    "SelfCancelledError",
    "TaskLostError",
    "UnsafeRoleError",
    "UserContextError",
    "UserError",
    "UserScopeError",
    "WorkerDiedError",
    "WorkerStartError",
    "WrongLoopError",
    "WrongThreadError",
)


class HomeloopError(Exception):
    """Root of everything homeloop raises itself. What your own code raises is never wrapped."""


class AffinityError(HomeloopError):
    """A loop-bound object was used away from its home."""


class WrongLoopError(AffinityError, RuntimeError):
    """
    A loop-bound object was used from a loop that does not own it; the object was not touched.

    Attributes:
        what: The object.
        owner: Its loop.
        current: The loop, or the process, that it was used from.
        remedy: What to do.
    """

    def __init__(
        self,
        what: str,
        owner: str,
        current: str,
        remedy: str = "call it through its runtime, or open one per loop with LoopLocal()",
    ) -> None:
        super().__init__(what, owner, current, remedy)
        self.what, self.owner, self.current, self.remedy = what, owner, current, remedy

    def __str__(self) -> str:
        return f"{self.what} belongs to {self.owner} but was used from {self.current}; {self.remedy}"


class WrongThreadError(AffinityError, RuntimeError):
    """A blocking call was made on the thread it would wait for; the function was not called."""

    def __init__(self, what: str, thread: str) -> None:
        super().__init__(what, thread)
        self.what, self.thread = what, thread

    def __str__(self) -> str:
        return f"{self.what} on the loop's own thread {self.thread!r} would wait for itself; await instead"


class LifecycleError(HomeloopError):
    """A runtime or a loop is not, or no longer, in a state to do what it was asked."""


class CallTimeoutError(LifecycleError, TimeoutError):
    """
    A call did not finish within its timeout.

    Attributes:
        what: The function's name.
        timeout: The work budget, in seconds.
        waiting_at: Where the coroutine was suspended when the time was over, outermost frame first.
        blocked_at: The stack that kept the loop from running, outermost first; empty if it ran.
        abandoned: Whether the coroutine was still there when the grace was over too.
        never_began: Why the function was not even called, and never will be; empty if it was. If neither this
            nor ``abandoned`` nor ``killed`` is true, it was cancelled and its clean-up has run.
        killed: Whether it ran in a process of its own that had to be killed; then it has ended, but its
            clean-up may not have run.
    """

    def __init__(
        self,
        what: str,
        timeout: float,
        waiting_at: tuple[str, ...] = (),
        blocked_at: tuple[str, ...] = (),
        abandoned: bool = False,
        never_began: str = "",
        killed: bool = False,
    ) -> None:
        # One argument: an OSError, which TimeoutError is, takes the first two of more for errno and strerror.
        super().__init__(what)
        self.what, self.timeout = what, timeout
        self.waiting_at, self.blocked_at = tuple(waiting_at), tuple(blocked_at)  # JSON makes lists of them
        self.abandoned, self.never_began, self.killed = abandoned, never_began, killed
        # All of them, for who builds it again of nothing else, as Celery does of a JSON result.
        self.args = (what, timeout, self.waiting_at, self.blocked_at, abandoned, never_began, killed)

    def __reduce__(self) -> tuple[type["CallTimeoutError"], tuple[object, ...], dict[str, object]]:
        return type(self), self.args, vars(self)  # with its notes

    def __str__(self) -> str:
        text = f"{self.what} did not finish within {self.timeout:g} s"
        if self.never_began:
            text += f"; it never began: {self.never_began}"
            return text + (f", which is blocked at {' > '.join(self.blocked_at)}" if self.blocked_at else "")
        if self.blocked_at:
            text += f"; it could not be cancelled, the loop is blocked at {' > '.join(self.blocked_at)}"
        elif self.waiting_at:
            text += f"; it was waiting at {' > '.join(self.waiting_at)}"
        if self.killed:
            return text + "; its process was killed"
        if self.abandoned:
            return text + "; it was abandoned and may still be running"
        return text + "; it was cancelled and its clean-up has run"


class DeadlockError(LifecycleError, RuntimeError):
    """
    A loop's thread was about to wait for a loop that waits for it; the function was not called.

    Attributes:
        waits: The stacks of the threads in the circle, each waiting for the next one.
    """

    def __init__(self, waits: tuple[str, ...]) -> None:
        super().__init__(tuple(waits))  # JSON makes a list of it
        self.waits = tuple(waits)

    def __str__(self) -> str:
        circle = "\n  waits for ".join(self.waits)
        return f"these threads would wait for each other for ever; use arun() in one of them:\n  {circle}"


class LoopEndingError(LifecycleError, RuntimeError):
    """A loop has closed what lived on it, because it is about to end; nothing is opened on it any more."""

    def __init__(self, what: str, loop: str) -> None:
        super().__init__(what, loop)
        self.what, self.loop = what, loop

    def __str__(self) -> str:
        return f"{self.what} cannot be opened: {self.loop} is ending and has closed its resources"


class OverloadedError(LifecycleError, RuntimeError):
    """The runtime has as many calls in flight as it may have; the function was not called."""

    def __init__(self, runtime: str, max_in_flight: int) -> None:
        super().__init__(runtime, max_in_flight)
        self.runtime, self.max_in_flight = runtime, max_in_flight

    def __str__(self) -> str:
        return (
            f"runtime {self.runtime!r} has {self.max_in_flight} calls in flight, as many as it may have; "
            'try again later, or open it with when_full="wait"'
        )


class RuntimeClosedError(LifecycleError, RuntimeError):
    """
    The runtime was closed before the call; the function was not called.

    Attributes:
        dropped: Whether nobody closed it, but nobody referred to it any more either.
    """

    def __init__(self, runtime: str, dropped: bool = False) -> None:
        super().__init__(runtime, dropped)
        self.runtime, self.dropped = runtime, dropped

    def __str__(self) -> str:
        if self.dropped:
            return (
                f"runtime {self.runtime!r} was dropped: nothing referred to it any more, which closes it; "
                "keep it in a variable as long as it has work"
            )
        return f"runtime {self.runtime!r} is closed; open another one"


class ExecutorClosedError(RuntimeClosedError):
    """The isolation executor was closed before the call, or while it waited; the function was not called."""

    def __init__(self, executor: str) -> None:
        super().__init__(executor)
        self.args = (executor,)
        self.executor = executor

    def __str__(self) -> str:
        return (
            f"isolation executor {self.executor!r} is closed; make another IsolationExecutor, "
            "or close this one after its last run"
        )


class RuntimeDiedError(LifecycleError, RuntimeError):
    """The loop's thread ended under a call, or cannot be started; the call may have begun."""

    def __init__(self, runtime: str, reason: str) -> None:
        super().__init__(runtime, reason)
        self.runtime, self.reason = runtime, reason

    def __str__(self) -> str:
        return f"runtime {self.runtime!r} cannot finish the call: {self.reason}"


class ScopeEndedError(LifecycleError, RuntimeError):
    """A resource scope has closed what was opened in it; nothing is opened in it any more."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} cannot be opened: the resource scope that this code runs in has ended; "
            "await its tasks before the end of resource_scope()"
        )


class UserError(HomeloopError):
    """A connection cannot be, or was not, one user's alone."""


class MissingUserError(UserError, LookupError):
    """A user's connection was asked for where no user is known; nothing was opened."""

    def __str__(self) -> str:
        return (
            "there is no current user; enter homeloop.as_user(user_id) around the work, "
            "or use get_service_connection() for work that is no user's"
        )


class UnsafeRoleError(UserError, RuntimeError):
    """Row level security would not bind the database role of users' connections; none was handed out."""

    def __init__(self, role: str, reason: str) -> None:
        super().__init__(role, reason)
        self.role, self.reason = role, reason

    def __str__(self) -> str:
        return (
            f"row level security does not bind database role {self.role!r}: it {self.reason}; "
            "let users' connections (DATABASE_URL) log in as a role of their own, NOSUPERUSER NOBYPASSRLS"
        )


class UserScopeError(UserError, RuntimeError):
    """
    A user's transaction was no longer the user's when it should be committed, and was not.

    What was still open was rolled back. What the block had committed itself stays.
    """

    def __init__(self, user: str, reason: str) -> None:
        super().__init__(user, reason)
        self.user, self.reason = user, reason

    def __str__(self) -> str:
        return (
            f"the transaction of user {self.user!r} was not committed: {self.reason}; "
            "what was still open was rolled back, what the block had committed itself stays"
        )


class IsolationError(HomeloopError):
    """Isolated work could not be carried to where it should run, or back, or was lost there."""


class NotTransferableError(IsolationError, TypeError):
    """
    Something cannot be carried to a worker process or back.

    When it was the function, its arguments or a context variable, the function was not called; when
    it was the result, the function has run.
    """

    def __init__(self, what: str, reason: str, remedy: str) -> None:
        super().__init__(what, reason, remedy)
        self.what, self.reason, self.remedy = what, reason, remedy

    def __str__(self) -> str:
        return f"{self.what} cannot cross to another process: {self.reason}; {self.remedy}"


class RemoteError(IsolationError, RuntimeError):
    """
    Stands in for an error of a worker process whose type this process cannot rebuild.

    Attributes:
        kind: The error's type, as ``module.qualname``.
        message: Its text.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class WorkerDiedError(IsolationError, RuntimeError):
    """
    The worker process ended under its work; the next call gets another one.

    Attributes:
        what: The function's name.
        pid: The process that ended.
        exitcode: Its exit code, or minus the number of the signal that killed it; None if nobody knows.
        last_progress: What the function reported last, as text; None if nothing.
    """

    def __init__(self, what: str, pid: int, exitcode: int | None, last_progress: str | None) -> None:
        super().__init__(what, pid, exitcode, last_progress)
        self.what, self.pid, self.exitcode, self.last_progress = what, pid, exitcode, last_progress

    def __str__(self) -> str:
        progress = (
            f"its last progress was {self.last_progress}" if self.last_progress else "it had reported nothing"
        )
        return f"process {self.pid}, which ran {self.what}, {_ended_how(self.exitcode)}; {progress}"


class WorkerStartError(IsolationError, RuntimeError):
    """
    A worker process could not be started; the function was not called. The next call tries again.

    Attributes:
        what: The process: a worker, or the template that workers are forked from.
        exitcode: Its exit code, or minus the number of the signal that killed it; None if nobody knows, or it has
            not ended by itself.
        reason: Why it did not start, if it has not ended; else empty.
        output: The last lines that it wrote to stderr; empty if it wrote nothing.
    """

    def __init__(self, what: str, exitcode: int | None, reason: str, output: str) -> None:
        super().__init__(what, exitcode, reason, output)
        self.what, self.exitcode, self.reason, self.output = what, exitcode, reason, output

    def __str__(self) -> str:
        told = f"{self.what} could not be started: {self.reason or 'it ' + _ended_how(self.exitcode)}"
        return told + (f"; the last that it wrote:\n{self.output}" if self.output else "; it wrote nothing")


def _ended_how(exitcode: int | None) -> str:
    if exitcode is None:
        return "ended, nobody knows how"
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        return f"was killed by signal {-exitcode} ({signal.Signals(-exitcode).name})"
    except ValueError:
        return f"was killed by signal {-exitcode}"


class AdapterError(HomeloopError, RuntimeError):
    """A product is not in the shape an adapter needs; nothing was changed."""


class UserContextError(AdapterError):
    """
    A task's user cannot be sealed for the broker, or what the broker delivered is not what was sealed.

    The task's function was not called.
    """


class LeaseLostError(AdapterError):
    """A worker did not answer for so long that its task is another one's now; what it wrote was refused."""

    def __init__(self, task_id: str, fence: int) -> None:
        super().__init__(task_id, fence)
        self.task_id, self.fence = task_id, fence

    def __str__(self) -> str:
        return (
            f"task {self.task_id} is another worker's now (this one held it with fence {self.fence}), as this "
            "process was frozen, its loop blocked or the store away longer than the lease; it is cancelled here"
        )


class SelfCancelledError(AdapterError):
    """A Celery task's coroutine has ended with a `asyncio.CancelledError` that nobody outside had asked for."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return (
            f"the coroutine of task {self.task!r} cancelled itself: it raised CancelledError, or awaited what "
            "somebody had cancelled; catch it there, and raise what is to be the task's error"
        )


class TaskLostError(AdapterError):
    """A task has lost its worker too often and is given up; it can be requeued."""

    def __init__(self, task_id: str, losses: int) -> None:
        super().__init__(task_id, losses)
        self.task_id, self.losses = task_id, losses

    def __str__(self) -> str:
        return (
            f"task {self.task_id} has lost its worker {self.losses} times without getting further; look for what "
            "kills it, then requeue(task_id) or discard(task_id)"
        )


class ConfigurationError(HomeloopError, RuntimeError):
    """Something must be said, or stopped, before this can be done; nothing was changed."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(fact, remedy)
        self.fact, self.remedy = fact, remedy

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}"
