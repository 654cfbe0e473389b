"""Bound callbacks: called from anywhere, run on their own loop, in order."""

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from typing import Any, Generic, Literal, ParamSpec

from homeloop._affinity import Affinity
from homeloop._events import CallbackFailed, CallbackRaised, emit
from homeloop.errors import LoopEndingError, WrongLoopError
from homeloop.runtime import (
    LAST_CHANCE,
    LoopFuture,
    callable_name,
    completed_in_hub,
    default_runtime,
    loop_ending,
    refuse_circle,
)

__all__ = ("BoundCallback", "Delivery", "bind_callback", "is_delivery")

P = ParamSpec("P")
_Call = tuple["Delivery", Context, tuple[Any, ...], dict[str, Any]]


class Delivery(LoopFuture[None]):
    """
    One call of a bound callback, on its way.

    Await it on any loop, or call `result` on a thread, to wait until the callback has run. It need
    not be waited for. Neither cancelling the waiter nor `cancel` takes the call back.
    """

    def __init__(self, home: Affinity) -> None:
        super().__init__(home.thread)
        self.loop: asyncio.AbstractEventLoop | None = None  # where it will run
        self._unsettled = True
        self._error: BaseException | None = None
        self._complete = completed_in_hub(lambda: self.complete(self._take_outcome))
        self.set_running_or_notify_cancel()  # from now on cancel() says no

    def claim(self) -> bool:
        """Tell the first caller, and no other, that it is the one to settle it. Thread: any."""
        return vars(self).pop("_unsettled", None) is not None  # in one step: two threads may try

    def settle(self, error: BaseException | None) -> None:
        """Complete it; it has been claimed. Thread: any."""
        self._error = error
        self._complete()

    def cancel(self) -> bool:
        """Return False: a call of a callback, once made, is not taken back."""
        return super().cancel()  # it is running as far as the future knows

    def forget_parent(self) -> None:
        """As any future; nobody settles it any more."""
        vars(self).pop("_unsettled", None)
        super().forget_parent()

    def _take_outcome(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        if self.loop is not None and not self.done():
            refuse_circle(self.loop)  # blocked in run() for the one who would wait here
        wrapped = asyncio.wrap_future(self)
        # Its error has been told already; asyncio would tell it again if the waiter was cancelled meanwhile.
        wrapped.add_done_callback(_mark_seen)
        return asyncio.shield(wrapped).__await__()


def _mark_seen(future: "asyncio.Future[None]") -> None:
    if not future.cancelled():
        future.exception()


class BoundCallback(Generic[P]):
    """
    A callback with a home; made by `bind_callback`.

    Calling it queues the call and returns at once. Calls run one after the other in the order in
    which they were made, each in a copy of its caller's context.

    Thread: any thread, any loop. Do not wait for a call from inside the callback itself.
    """

    def __init__(
        self,
        callback: Callable[P, Awaitable[object]] | Callable[P, object],
        on_error: Literal["report", "raise"],
        coalesce: Literal["none", "latest"],
    ) -> None:
        self.coalesces = coalesce == "latest"
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._on_error = on_error
        self._name = callable_name(callback)
        self._pid = os.getpid()
        self._queue: deque[_Call] = deque()
        self._running: Delivery | None = None
        self._pump: asyncio.Task[None] | None = None
        self._ending = loop_ending(self._loop)
        self._home = self._ending.affinity
        # The loop's end must not keep every callback alive that was ever bound to the loop.
        end, lose = weakref.WeakMethod(self.end), weakref.WeakMethod(self.lose)
        leave = self._ending.add(lambda: _end(end), lambda: _lose(lose), left=lambda: _lose(lose))
        weakref.finalize(self, leave).atexit = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Delivery:
        delivery = Delivery(self._home)
        if os.getpid() != self._pid:  # the parent's loop must not even be woken
            self._settle(
                delivery,
                WrongLoopError(
                    f"callback {self._name}",
                    str(self._home),
                    f"process {os.getpid()}",
                    "call bind_callback() again in this process",
                ),
            )
            return delivery
        delivery.loop = self._loop
        self._queue.append((delivery, copy_context(), args, kwargs))
        try:
            self._loop.call_soon_threadsafe(_WakeUp(self._wake, self.refuse))
        except RuntimeError:
            if not self._loop.is_closed():  # the caller's stack is full
                raise
            # The wake-up has seen that it is closed.
        # Looked at after the append: the end sets the flag first and empties the queue then.
        if self._ending.begun:
            self.refuse()
        return delivery

    def __repr__(self) -> str:
        return f"<BoundCallback {self._name} on {self._home}>"

    def refuse(self) -> None:
        """Answer the calls that have not begun: the loop is ending or closed. Thread: any."""
        if os.getpid() != self._pid:
            return  # they are the parent's, who answers them
        while self._queue:
            try:
                delivery, *_ = self._queue.popleft()
            except IndexError:  # another thread took the last one
                return
            self._settle(delivery, self._refusal())

    def lose(self) -> None:
        """Answer every call: the loop was closed, or left behind, while one ran. Thread: any."""
        running, self._running = self._running, None
        if running is not None:
            self._settle(running, self._refusal())
        self.refuse()

    # -- on the loop ---------------------------------------------------------------------------------

    async def end(self) -> None:
        """Cancel the call that runs and answer the others."""
        pump = self._pump
        if pump is not None:
            pump.cancel()
            await asyncio.wait((pump,), timeout=LAST_CHANCE)
        self.lose()

    def _wake(self) -> None:
        if self._pump is None and self._queue:
            self._pump = self._loop.create_task(self._run_queued(), context=Context())
            self._pump.add_done_callback(self._pumped)

    def _pumped(self, pump: "asyncio.Task[None]") -> None:
        self._pump = None
        if pump.cancelled():
            self.refuse()  # the loop is ending
        else:
            self._wake()  # what came in after the last look

    async def _run_queued(self) -> None:
        while (call := self._next()) is not None:
            delivery, context, args, kwargs = call
            self._running = delivery
            try:
                # A task of its own, so that it runs in the caller's context.
                await self._loop.create_task(self._invoke(args, kwargs), context=context)
            except asyncio.CancelledError as cancelled:
                if (pump := asyncio.current_task()) is not None and pump.cancelling():
                    self._settle(delivery, self._refusal())
                    raise
                self._settle(delivery, cancelled)
            except GeneratorExit:  # thrown away with its loop
                self._settle(delivery, self._refusal())
                raise
            except BaseException as error:  # SystemExit and KeyboardInterrupt went to the loop's owner too
                self._settle(delivery, error)
            else:
                self._settle(delivery, None)
            self._running = None

    def _next(self) -> _Call | None:
        """Take out the next call that is to run; None if there is none, or another thread has refused the rest."""
        try:
            while self.coalesces and len(self._queue) > 1:
                self._settle(self._queue.popleft()[0], None)
            return self._queue.popleft()
        except IndexError:
            return None

    async def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        result = self._callback(*args, **kwargs)
        if isinstance(result, Awaitable):
            await result

    def _settle(self, delivery: Delivery, error: BaseException | None) -> None:
        if not delivery.claim():
            return  # given up when the loop's end could not wait for it
        if error is not None:
            kind = CallbackRaised if self._on_error == "raise" else CallbackFailed
            emit(kind(self._name, self._home, f"{type(error).__name__}: {error}"))
        delivery.settle(error if self._on_error == "raise" else None)

    def _refusal(self) -> LoopEndingError:
        return LoopEndingError(f"callback {self._name}", str(self._home))


class _WakeUp:
    """
    Wakes a callback's loop, or answers the callback's calls.

    A loop that is closed before it has run this throws it away, and that is the only sign it gives.
    """

    __slots__ = ("_refuse", "_wake")

    def __init__(self, wake: Callable[[], None], refuse: Callable[[], None]) -> None:
        self._wake = wake
        self._refuse: Callable[[], None] | None = refuse

    def __call__(self) -> None:
        self._refuse = None
        self._wake()

    def __del__(self) -> None:
        if self._refuse is not None:
            self._refuse()


async def _end(method: Callable[[], Callable[[], Awaitable[None]] | None]) -> None:
    if (end := method()) is not None:
        await end()


def _lose(method: Callable[[], Callable[[], None] | None]) -> None:
    if (lose := method()) is not None:
        lose()


def bind_callback(
    callback: Callable[P, Awaitable[object]] | Callable[P, object],
    *,
    on_error: Literal["report", "raise"] = "report",
    coalesce: Literal["none", "latest"] = "none",
) -> BoundCallback[P]:
    """
    Give a callback a home: it always runs on the running loop, whoever calls it.

    Args:
        callback: Async function, or a sync one that does not block.
        on_error: ``"report"`` logs what the callback raises, tells the instruments and lets the
            workflow go on; ``"raise"`` raises it where the call is awaited, and tells of it as a warning, which
            is no incident for the health monitor.
        coalesce: ``"latest"`` for progress so chatty that only the last call counts: calls that have not
            begun when a later one is made are left out, and count as done. The last one always runs.

    Returns:
        A callable with the callback's own parameters; what it returns may be awaited on any loop.

    Raises:
        TypeError: ``callback`` cannot be called.
        ValueError: ``on_error`` or ``coalesce`` is something else.

    Thread: where a loop runs, that loop is the home; elsewhere the default runtime's is.
    """
    if not callable(callback):
        raise TypeError(f"pass the function to be called back, got {callback!r}")
    if on_error not in ("report", "raise"):
        raise ValueError(f"on_error must be 'report' or 'raise', got {on_error!r}")
    if coalesce not in ("none", "latest"):
        raise ValueError(f"coalesce must be 'none' or 'latest', got {coalesce!r}")
    if asyncio._get_running_loop() is not None:  # pyright: ignore[reportPrivateUsage] - documented
        return BoundCallback(callback, on_error, coalesce)
    return default_runtime().run(_bind, callback, on_error, coalesce)


async def _bind(
    callback: Callable[P, Awaitable[object]] | Callable[P, object],
    on_error: Literal["report", "raise"],
    coalesce: Literal["none", "latest"],
) -> BoundCallback[P]:
    return BoundCallback(callback, on_error, coalesce)


def is_delivery(task: "asyncio.Task[Any]") -> bool:
    """Tell whether a task is a bound callback's own: it runs in its caller's context, but is not its caller's."""
    return getattr(task.get_coro(), "cr_code", None) is _INVOKE


_INVOKE = BoundCallback._invoke.__code__  # pyright: ignore[reportPrivateUsage] - same module
