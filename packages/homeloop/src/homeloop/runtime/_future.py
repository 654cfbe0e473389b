"""Futures that a loop completes and threads wait for."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, TypeVar, cast

from homeloop._events import CleanUpFailed, emit
from homeloop.errors import RuntimeDiedError
from homeloop.runtime._call import Call
from homeloop.runtime._fork import STAYED, forget_in_child
from homeloop.runtime._originals import RLock, get_ident, real_threading
from homeloop.runtime._probe import error_text
from homeloop.runtime._waiting import Waiter, new_waiter

T = TypeVar("T")

_PATIENCE = 0.05
"""Seconds a loop tries to get a future's lock. Nobody holds it longer than for a few steps, except a thread that
an exception from outside hit in `concurrent.futures.wait`: that one never lets go of it. A guess."""


class _Condition(RLock):  # type: ignore[misc]  # a class written in C, of which no type is known
    """
    The condition that a future's threads wait on, with two properties that `threading.Condition` lacks.

    No interrupted ``with`` keeps it locked: it is entered by the lock's own method, written in C, where no signal
    handler runs; a thread that is hit by one in the method of the standard library's, written in Python, leaves
    the lock taken for ever, and the loop that would complete the future would wait for it as long.
    And whoever waits does so as for any call, so greenlets, forks and injected exceptions are seen to.
    """

    def __init__(self, runtime: str) -> None:
        self.name = runtime
        self.inherited = False
        self._wakes: deque[Callable[[], object]] = deque()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `wake_all`, at most ``timeout`` seconds, without the lock; tell whether it came."""
        waiter = new_waiter()
        self._wakes.append(waiter.wake)
        mine = (1, get_ident())
        try:
            self.release()
            woken = waiter.wait(timeout, self)
            self._acquire_restore(mine)
            if not woken:
                self._put_away(waiter)
            return woken
        except BaseException:  # wherever it struck
            if not self._is_owned():
                self._acquire_restore(mine)
            self._put_away(waiter)
            raise

    def _put_away(self, waiter: Waiter) -> None:
        """Have a waiter that waited in vain used up, so that it can be used again."""
        try:
            self._wakes.remove(waiter.wake)
        except ValueError:  # somebody is just waking it
            return
        waiter.wake()
        waiter.wait(0.0)

    def notify_all(self) -> None:
        """Do nothing yet: whoever wakes while the lock is held waits once more, for the lock. See `wake_all`."""

    def wake_all(self) -> None:
        """Wake all who wait; the lock is free, and what they wait for is there."""
        while True:
            try:
                wake = self._wakes.popleft()
            except IndexError:  # no more, or another thread took the last one
                return
            wake()

    def forget_parent(self) -> None:
        """Be free in a forked child, whatever a thread of the parent's has locked."""
        self.inherited = True
        if not self._is_owned():
            self._at_fork_reinit()


class LoopFuture(Future[T]):
    """
    A future that a loop completes, without ever being blocked by those who wait for it.

    In a forked child it has failed with `RuntimeDiedError`, unless it was done before.
    """

    def __init__(self, runtime: str) -> None:
        super().__init__()
        self._lock = _Condition(runtime)
        self._condition = cast("Any", self._lock)
        self.add_done_callback(_wake_all)  # the first one
        self._runtime = runtime
        forget_in_child(self)

    def complete(self, complete: Callable[[], object]) -> None:
        """Call ``complete()``, which completes the future; on another thread if somebody keeps the lock."""
        if self._condition.acquire(timeout=_PATIENCE):
            self._condition.release()
            complete()
        else:
            real_threading().Thread(target=complete, name=f"{self._runtime}-late", daemon=True).start()

    def forget_parent(self) -> None:
        """Fail in a forked child: who would complete it is the parent's. Nobody is called back."""
        self._lock.forget_parent()
        if self._state in ("PENDING", "RUNNING"):
            vars(self)["_done_callbacks"].clear()
            self._exception = RuntimeDiedError(self._runtime, STAYED)
            self._state = "FINISHED"


Submitted = Callable[["CallFuture[Any]", Callable[..., object]], object]

submission_listeners: list[Submitted] = []
"""Each is told of every submitted call's future and function, on the thread that submits it."""


def _wake_all(future: Any) -> None:
    future._condition.wake_all()


class CallFuture(LoopFuture[T]):
    """A future that passes its cancellation on to the call."""

    def __init__(self, runtime: str, cancel_call: Callable[[], None]) -> None:
        super().__init__(runtime)
        self._cancel_call: Callable[[], None] | None = cancel_call
        self._deciding = RLock()  # held to decide only; re-entered by signal handlers and finalizers
        self._decided: Literal["cancelled", "resolved"] | None = None
        self._ended = False
        self._to_tell: list[Callable[[], object]] = []  # of the end
        self._unnotified = True

    def cancel(self) -> bool:
        """Cancel the call, begun or not; False only if it has finished."""
        with self._deciding:
            if self._decided is not None:
                return self._decided == "cancelled"
            self._decided = "cancelled"
        self._show_cancelled()
        if self._cancel_call is not None:
            self._cancel_call()
        return True

    def resolve(self, call: "Call[T]") -> None:
        """Take over the call's outcome, unless cancelled meanwhile."""
        self._cancel_call = None  # it refers to the call, and the call may refer to us
        error = call.take_error()
        with self._deciding:
            cancelled = self._decided == "cancelled"
            self._decided = self._decided or "resolved"
        if cancelled and isinstance(error, Exception) and not isinstance(error, RuntimeDiedError):
            emit(CleanUpFailed(self._runtime, call.name, error_text(error)))
        self.complete(lambda: self._take(call, error, cancelled))
        with self._deciding:
            self._ended = True
        while self._to_tell:
            self._to_tell.pop()()

    def when_ended(self, tell: Callable[[], object]) -> None:
        """Have ``tell`` called once the call is over, clean-up included, on whatever thread; at once if it is."""
        with self._deciding:
            if not self._ended:
                self._to_tell.append(tell)
                return
        tell()

    def forget_parent(self) -> None:
        """As any future; it cannot be cancelled any more, as that would touch the parent's loop."""
        self._deciding = RLock()
        self._cancel_call = None
        self._decided = self._decided or "resolved"
        super().forget_parent()

    def _take(self, call: "Call[T]", error: BaseException | None, cancelled: bool) -> None:
        if cancelled or isinstance(error, asyncio.CancelledError):
            self._show_cancelled()  # again, in case that whoever cancelled it was interrupted
            return
        self.set_running_or_notify_cancel()
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(call.value)

    def _show_cancelled(self) -> None:
        super().cancel()
        if vars(self).pop("_unnotified", False):  # in one step: two threads may try
            self.set_running_or_notify_cancel()  # so that futures.wait() sees it as done
