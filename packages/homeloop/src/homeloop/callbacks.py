"""Bound callbacks: called from anywhere, run on their own loop, in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, Generic, Literal, ParamSpec

from homeloop._events import CallbackFailed, emit
from homeloop.errors import LoopEndingError
from homeloop.runtime import callable_name, default_runtime, loop_affinity

__all__ = ("BoundCallback", "Delivery", "bind_callback")

P = ParamSpec("P")


class Delivery(Future[None]):
    """
    One call of a bound callback, on its way.

    Await it on any loop, or call `result` on a thread, to wait until the callback has run. It need
    not be waited for. Cancelling the waiter does not take the call back.
    """

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(asyncio.wrap_future(self)).__await__()


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
        loop: asyncio.AbstractEventLoop,
        on_error: Literal["report", "raise"],
    ) -> None:
        self._callback = callback
        self._loop = loop
        self._on_error = on_error
        self._name = callable_name(callback)
        self._home = loop_affinity(loop)
        self._queue: deque[tuple[Delivery, Context, tuple[Any, ...], dict[str, Any]]] = deque()
        self._pump: asyncio.Task[None] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Delivery:
        delivery = Delivery()
        self._queue.append((delivery, copy_context(), args, kwargs))
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            self._refuse_all()
        return delivery

    def __repr__(self) -> str:
        return f"<BoundCallback {self._name} on {self._home}>"

    # -- on the loop ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._pump is None and self._queue:
            self._pump = self._loop.create_task(self._run_queued(), context=Context())
            self._pump.add_done_callback(self._pumped)

    def _pumped(self, pump: "asyncio.Task[None]") -> None:
        self._pump = None
        if pump.cancelled():
            self._refuse_all()  # the loop is ending
        else:
            self._wake()  # what came in after the last look

    async def _run_queued(self) -> None:
        while self._queue:
            delivery, context, args, kwargs = self._queue.popleft()
            try:
                # A task of its own, so that it runs in the caller's context.
                await self._loop.create_task(self._invoke(args, kwargs), context=context)
            except asyncio.CancelledError as cancelled:
                self._settle(delivery, cancelled)
                if (pump := asyncio.current_task()) is not None and pump.cancelling():
                    raise
            except Exception as error:
                self._settle(delivery, error)
            else:
                delivery.set_result(None)

    async def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        result = self._callback(*args, **kwargs)
        if isinstance(result, Awaitable):
            await result

    def _settle(self, delivery: Delivery, error: BaseException) -> None:
        emit(CallbackFailed(self._name, self._home, f"{type(error).__name__}: {error}"))
        if self._on_error == "raise":
            delivery.set_exception(error)
        else:
            delivery.set_result(None)

    def _refuse_all(self) -> None:
        while self._queue:
            try:
                delivery, *_ = self._queue.popleft()
            except IndexError:  # another thread took the last one
                return
            self._settle(delivery, LoopEndingError(f"callback {self._name}", str(self._home)))


def bind_callback(
    callback: Callable[P, Awaitable[object]] | Callable[P, object],
    *,
    on_error: Literal["report", "raise"] = "report",
) -> BoundCallback[P]:
    """
    Give a callback a home: it always runs on the running loop, whoever calls it.

    Args:
        callback: Async function, or a sync one that does not block.
        on_error: ``"report"`` logs what the callback raises, tells the instruments and lets the
            workflow go on; ``"raise"`` does so too and raises it where the call is awaited.

    Returns:
        A callable with the callback's own parameters; what it returns may be awaited on any loop.

    Thread: where a loop runs, that loop is the home; elsewhere the default runtime's is.
    """
    loop = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage] - documented, returns None
    if loop is None:
        loop = default_runtime().run(_running_loop)
    return BoundCallback(callback, loop, on_error)


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
