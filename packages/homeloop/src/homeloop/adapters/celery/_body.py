"""A task's coroutine on the loop, and what may end it from outside: time limits and revocation."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Protocol

from celery.exceptions import SoftTimeLimitExceeded


class SoftLimitReached(SoftTimeLimitExceeded, asyncio.CancelledError):  # type: ignore[misc]
    """Celery's exception to the task's author, and still a cancellation to the task groups it passes."""


current_body: "ContextVar[Postponing | None]" = ContextVar("homeloop_celery_body", default=None)
"""The body that runs in the present context, for the task's own retry."""


class Postponing(Protocol):
    """What runs a coroutine, and does afterwards what the coroutine must not do on the loop."""

    postponed: list[Callable[[], object]]


class Body(Generator[Any, Any, Any]):
    """
    A task's coroutine, to be run once on a loop, whose soft time limit arrives as `SoftLimitReached`.

    Prefork raises the limit in the waiting thread: the runtime cancels the call within the ``except``
    block of what interrupted the thread, and stays there while the coroutine cleans up, so the interpreter knows
    whether that was a soft limit. Elsewhere nobody raises it, and the loop's own clock tells.

    Args:
        make: Makes the coroutine; called on the loop.
        soft_limit: Seconds the loop's clock allows; None if Celery sees to it, or there is no limit.

    Attributes:
        cr_await: The coroutine, under the name by which tools find what is awaited.
        is_limited: Whether it has seen its soft limit.
        is_terminated: Whether `terminate` was called.
        outcome: The value it returned, in a tuple of one; None before it has.
        error: The exception that ended it.
        postponed: What is to be done as soon as it has ended, on the thread that waits for it.

    Thread: made on the thread that waits for it; `run` on the loop's.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]], soft_limit: float | None) -> None:
        self._made_at = time.monotonic()
        self._ended_at: float | None = None
        self._end: threading.Event | None = None  # of who waits for it
        self._make = make
        self._soft_limit = soft_limit
        self._is_due = False
        self._waiter = threading.get_ident()
        self._before = _handled_by(self._waiter)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self.is_limited = False
        self.is_terminated = False
        self.outcome: tuple[Any] | None = None
        self.error: BaseException | None = None
        self.postponed: list[Callable[[], object]] = []

    async def run(self) -> Any:
        """Run the coroutine to its end, in the current asyncio task; return and raise what it does."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.is_terminated:
            raise asyncio.CancelledError
        clock = None if self._soft_limit is None else self._loop.call_later(self._soft_limit, self._reach_limit)
        self.cr_await = self._make()
        current_body.set(self)
        try:
            value = await self
        except BaseException as error:
            self.error = error  # to be cleared by whoever made the body: the error's frames know the body
            raise
        finally:
            self._task = None
            self._ended_at = time.monotonic()
            if self._end is not None:  # looked at after the time was set: who waits does it the other way round
                self._end.set()
            if clock is not None:
                clock.cancel()
        self.outcome = (value,)
        return value

    @property
    def has_ended(self) -> bool:
        """Whether it was run to its end."""
        return self._ended_at is not None

    def has_outlasted(self, limit: float | None) -> bool:
        """Tell whether it ended, but not within so many seconds of its making; None is for ever."""
        return limit is not None and self._ended_at is not None and self._ended_at - self._made_at >= limit

    def wait_end(self, seconds: float) -> bool:
        """Wait until so many seconds after its making for its end; tell whether it came."""
        self._end = threading.Event()
        return self.has_ended or self._end.wait(max(0.0, self._made_at + seconds - time.monotonic()))

    def terminate(self) -> None:
        """Cancel the coroutine; one that has not begun never will. Thread: any."""
        self.is_terminated = True
        self.cancel()

    def cancel(self) -> None:
        """Cancel the coroutine once more, if it runs. Thread: any."""
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._cancel)
            except RuntimeError:  # the loop is closed, which has cancelled it
                pass

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _reach_limit(self) -> None:
        self._is_due = True
        self._cancel()

    __await__ = Generator.__iter__

    def send(self, value: Any) -> Any:
        return self.cr_await.send(value)

    def throw(self, error: Any, *_: Any) -> Any:
        if isinstance(error, asyncio.CancelledError) and not self.is_limited and not self.is_terminated:
            self.is_limited = self._is_due or self._is_waiter_limited()
            if self.is_limited and self._task is not None:
                self._task.uncancel()  # from now on an exception to handle, and no request to end
                error = SoftLimitReached(*() if self._soft_limit is None else (self._soft_limit,))
        return self.cr_await.throw(error)

    def _is_waiter_limited(self) -> bool:
        cause = _handled_by(self._waiter)
        return isinstance(cause, SoftTimeLimitExceeded) and cause is not self._before


def _handled_by(thread: int) -> Any:
    handled: Any = sys._current_exceptions().get(thread)
    return handled[1] if isinstance(handled, tuple) else handled  # exc_info in 3.11
