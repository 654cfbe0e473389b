"""The future of a submitted call."""

import asyncio
from _thread import allocate_lock
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal, TypeVar

from homeloop._events import CleanUpFailed, emit
from homeloop.runtime._call import Call

T = TypeVar("T")


class CallFuture(Future[T]):
    """A future that passes its cancellation on to the call."""

    def __init__(self, runtime: str, cancel_call: Callable[[], None]) -> None:
        super().__init__()
        self._runtime = runtime
        self._cancel_call: Callable[[], None] | None = cancel_call
        self._deciding = allocate_lock()  # held to decide only: done callbacks run without it
        self._decided: Literal["cancelled", "resolved"] | None = None

    def cancel(self) -> bool:
        """Cancel the call, begun or not; False only if it has finished."""
        with self._deciding:
            if self._decided is not None:
                return self._decided == "cancelled"
            self._decided = "cancelled"
        super().cancel()
        self.set_running_or_notify_cancel()  # so that futures.wait() sees it as done
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
        if cancelled:
            if isinstance(error, Exception):
                emit(CleanUpFailed(self._runtime, call.name, repr(error)))
        elif isinstance(error, asyncio.CancelledError):
            super().cancel()
            self.set_running_or_notify_cancel()
        elif error is not None:
            self.set_running_or_notify_cancel()
            self.set_exception(error)
        else:
            self.set_running_or_notify_cancel()
            self.set_result(call.value)
