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
│   └── RuntimeDiedError        (RuntimeError)
└── AdapterError                (RuntimeError) a product is not in the shape an adapter needs

Fields are plain data and ``args`` mirror the constructor, so every error survives pickle and with
it a Celery result or a process boundary.
"""

__all__ = (
    "AdapterError",
    "AffinityError",
    "CallTimeoutError",
    "DeadlockError",
    "HomeloopError",
    "LifecycleError",
    "LoopEndingError",
    "OverloadedError",
    "RuntimeClosedError",
    "RuntimeDiedError",
    "WrongLoopError",
    "WrongThreadError",
)


class HomeloopError(Exception):
    """Root of everything homeloop raises itself. What your own code raises is never wrapped."""


class AffinityError(HomeloopError):
    """A loop-bound object was used away from its home."""


class WrongLoopError(AffinityError, RuntimeError):
    """A loop-bound object was used from a loop that does not own it; the object was not touched."""

    def __init__(self, what: str, owner: str, current: str) -> None:
        super().__init__(what, owner, current)
        self.what, self.owner, self.current = what, owner, current

    def __str__(self) -> str:
        return (
            f"{self.what} belongs to {self.owner} but was used from {self.current}; "
            "call it through its runtime, or open one per loop with LoopLocal()"
        )


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
        abandoned: Whether the coroutine was still there when the grace was over too. If not, it was
            cancelled and its clean-up has run.
    """

    def __init__(
        self,
        what: str,
        timeout: float,
        waiting_at: tuple[str, ...] = (),
        blocked_at: tuple[str, ...] = (),
        abandoned: bool = False,
    ) -> None:
        # One argument: an OSError, which TimeoutError is, takes the first two of more for errno and strerror.
        super().__init__(what)
        self.what, self.timeout = what, timeout
        self.waiting_at, self.blocked_at, self.abandoned = waiting_at, blocked_at, abandoned

    def __reduce__(self) -> tuple[type["CallTimeoutError"], tuple[object, ...]]:
        return type(self), (self.what, self.timeout, self.waiting_at, self.blocked_at, self.abandoned)

    def __str__(self) -> str:
        text = f"{self.what} did not finish within {self.timeout:g} s"
        if self.blocked_at:
            text += f"; it could not be cancelled, the loop is blocked at {' > '.join(self.blocked_at)}"
        elif self.waiting_at:
            text += f"; it was waiting at {' > '.join(self.waiting_at)}"
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
        super().__init__(waits)
        self.waits = waits

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
    """The runtime was closed before the call; the function was not called."""

    def __init__(self, runtime: str) -> None:
        super().__init__(runtime)
        self.runtime = runtime

    def __str__(self) -> str:
        return f"runtime {self.runtime!r} is closed; open another one"


class RuntimeDiedError(LifecycleError, RuntimeError):
    """The loop's thread ended under a call, or cannot be started; the call may have begun."""

    def __init__(self, runtime: str, reason: str) -> None:
        super().__init__(runtime, reason)
        self.runtime, self.reason = runtime, reason

    def __str__(self) -> str:
        return f"runtime {self.runtime!r} cannot finish the call: {self.reason}"


class AdapterError(HomeloopError, RuntimeError):
    """A product is not in the shape an adapter needs; nothing was changed."""
