"""LoopLocal: one resource per loop, opened on first use and closed on that same loop."""

import asyncio
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from types import coroutine
from typing import Any, Generic, TypeVar, overload
from weakref import WeakKeyDictionary

from homeloop._events import ResourceClosed, ResourceCloseFailed, ResourceDropped, ResourceOpened, emit
from homeloop.errors import LoopEndingError, WrongThreadError
from homeloop.runtime import (
    LAST_CHANCE,
    Ending,
    callable_name,
    forget_in_child,
    keep_untouched,
    loop_ending,
    notice_closed_loops,
)

T = TypeVar("T")
Close = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """How often a resource was opened, failed to open and was closed in this process; ``live`` are open now."""

    opened: int
    failed: int
    closed: int
    live: int


class _Instance(Generic[T]):
    """
    A resource on its loop, from the first call of its factory until it is gone.

    Its opening and its closing are tasks of their own, so that nobody's cancellation hits them, in
    one context, so that a context variable set by the one can be reset by the other.
    """

    __slots__ = (
        "close",
        "closing",
        "context",
        "ending",
        "gone",
        "is_open",
        "leases",
        "leave_ending",
        "opening",
        "unused",
        "value",
    )

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.context = Context()
        self.opening: asyncio.Task[None]
        self.closing: asyncio.Task[None] | None = None
        self.value: T
        self.close: Close
        self.is_open = False
        self.leases = 0
        self.unused = asyncio.Event()
        self.unused.set()
        self.gone: Future[None] = Future()
        self.leave_ending: Callable[[], None]

    def start(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a part of its life; not through the loop's task factory, for an eager one would run it too early."""
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), context=self.context)


class _Lease(AbstractAsyncContextManager[T, None]):
    """
    What ``async with local()`` enters.

    Not an asynchronous generator: the loop's end would close that at the same time as the resource.
    """

    def __init__(self, current: Callable[[], Awaitable[_Instance[T]]]) -> None:
        self._current = current
        self._held: list[_Instance[T]] = []

    async def __aenter__(self) -> T:
        instance = await self._current()  # does not give way after it has looked: still open
        self._held.append(instance)
        instance.leases += 1
        instance.unused.clear()
        return instance.value

    async def __aexit__(self, *_: object) -> None:
        instance = self._held.pop()
        instance.leases -= 1
        if not instance.leases:
            instance.unused.set()


class LoopLocal(Generic[T]):
    """
    Give every loop a resource of its own.

    ``factory()`` runs on the loop that first asks, once, however many ask at the same time. What
    it gives may be an async context manager (entered, and left at the end), something to await,
    or the resource itself; without a context manager the end is its ``aclose()`` or ``close()``,
    if it has one. The resource is closed on its own loop before that loop ends, whoever owns the
    loop: `LoopRuntime`, `asyncio.run`, uvicorn. Resources opened later are closed earlier, so one
    may use another in its factory.

    The factory runs in an empty context: the first user's context variables stay the first user's.
    The resource is closed in that same context, but in another task: an AnyIO cancel scope or task
    group that stays open for the life of the resource is not supported.

    Args:
        factory: Makes the resource.
        close: Closes it instead of what is said above; an async context manager is not entered then.
        name: For logs and errors; the factory's name by default.
        close_timeout: Seconds that closing may take, waiting for leases included, before the
            resource is let go with a warning.

    Thread: one object serves all threads and loops. A forked child starts with nothing open.
    """

    @overload
    def __init__(
        self,
        factory: Callable[[], AbstractAsyncContextManager[T]],
        *,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[[], Awaitable[T]],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[[], T],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None: ...
    def __init__(
        self,
        factory: Callable[[], object],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"pass the function that makes the resource, not the resource: {factory!r}")
        self.name = name or callable_name(factory)
        self._factory = factory
        self._close = close
        self._close_timeout = close_timeout
        self._forget_all()
        forget_in_child(self)

    async def get(self) -> T:
        """
        Return the running loop's instance; open it if it is not open.

        Raises:
            LoopEndingError: The loop is ending and has closed its resources, or does so now.
            BaseException: What the factory raised. Nothing is kept; the next call tries again.

        Cancellation: leaves the opening to the others who wait for it; it goes on even if none does.
        """
        return (await self._current()).value

    def __call__(self) -> AbstractAsyncContextManager[T, None]:
        """
        Lease the running loop's instance: ``async with local() as resource``.

        A leased resource is not closed by `aclose` or `close` until it is given back, at most
        ``close_timeout``. Entering raises as `get`.
        """
        return _Lease(self._current)

    async def aclose(self) -> None:
        """
        Close the running loop's instance, if there is one. The next `get` opens a new one.

        Cancellation: stops the waiting; the closing goes on.
        """
        instance = self._instances.get(asyncio.get_running_loop())
        if instance is not None:
            await asyncio.wait((self._start_closing(instance),))

    def close(self, timeout: float = 10.0) -> None:
        """
        Close every loop's instance, each on its own loop, and wait for it.

        Args:
            timeout: Seconds to wait for each loop.

        Raises:
            WrongThreadError: The calling thread runs a loop with an instance: await `aclose` there.
                Nothing was closed.
            TimeoutError: A loop did not close its instance in time; the others' are closed.

        Thread: any that runs no loop with an instance. Instances of loops that do not run are left.
        """
        here = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage] - documented, returns None
        with self._lock:
            places = [(loop, instance) for loop, instance in self._instances.items() if loop.is_running()]
        if any(loop is here for loop, _ in places):
            raise WrongThreadError(f"close() of {self.name}", threading.current_thread().name)
        for loop, instance in places:
            try:
                loop.call_soon_threadsafe(self._start_closing, instance)
            except RuntimeError:
                pass  # it has ended meanwhile, and the instance with it
        late = 0
        for _, instance in places:
            try:
                instance.gone.result(timeout)
            except TimeoutError:
                notice_closed_loops()
                late += not instance.gone.done()
        if late:
            raise TimeoutError(f"{self.name} was not closed within {timeout:g} s on {late} of {len(places)} loops")

    def statistics(self) -> ResourceStatistics:
        """Return the counts of this process. Thread: any."""
        notice_closed_loops()
        with self._lock:
            live = self._opened - self._closed - self._dropped
            return ResourceStatistics(self._opened, self._failed, self._closed, live)

    def forget_parent(self) -> None:
        """Forget, in a forked child, what stayed with the parent. Called by the fork hook."""
        keep_untouched(self._instances)
        self._forget_all()

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<LoopLocal {self.name}>"

    def _forget_all(self) -> None:
        self._instances: WeakKeyDictionary[asyncio.AbstractEventLoop, _Instance[T]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._opened = self._failed = self._closed = self._dropped = 0

    # -- on the loop -------------------------------------------------------------------------------

    async def _current(self) -> _Instance[T]:
        """Return the open instance, and do not give way between the last look and the return."""
        loop = asyncio.get_running_loop()
        while True:
            instance = self._instances.get(loop)
            if instance is None:
                instance = self._start_opening(loop)
            if instance.is_open:
                return instance
            try:
                await asyncio.wait((instance.opening,))  # unlike awaiting it, this does not cancel it with us
                if instance.opening.cancelled() and instance.ending.begun:
                    raise LoopEndingError(self.name, str(instance.ending.affinity))
                instance.opening.result()
            finally:
                del instance  # or the error's traceback would hold the task that holds the error

    def _start_opening(self, loop: asyncio.AbstractEventLoop) -> _Instance[T]:
        ending = loop_ending(loop)
        if ending.begun:
            raise LoopEndingError(self.name, str(ending.affinity))
        instance = _Instance[T](ending)
        instance.opening = instance.start(self._open(instance))
        self._close_at_end(instance)
        with self._lock:
            self._instances[loop] = instance
        return instance

    async def _open(self, instance: _Instance[T]) -> None:
        try:
            instance.value, instance.close = await _unnoticed(self._make())
        except BaseException:
            self._part(instance)
            with self._lock:
                self._failed += 1
            del instance  # as in _current
            raise
        with self._lock:
            self._opened += 1
        emit(ResourceOpened(self.name, instance.ending.affinity))
        if instance.ending.begun:  # it would not be closed any more
            await self._close_opened(instance)
            loop = str(instance.ending.affinity)
            del instance
            raise LoopEndingError(self.name, loop)
        instance.is_open = True
        instance.leave_ending()
        self._close_at_end(instance)  # before what was opened while it was opening

    async def _make(self) -> tuple[T, Close]:
        made: Any = self._factory()  # Any: its shape is found out here
        close = self._close
        if close is None and _is_context_manager(made):
            return await made.__aenter__(), lambda: made.__aexit__(None, None, None)
        if inspect.isawaitable(made):
            made = await made
        if close is not None:
            return made, lambda: close(made)
        for name in ("aclose", "close"):
            if (method := getattr(made, name, None)) is not None:
                return made, lambda: _call(method)
        if _is_context_manager(made):
            return await made.__aenter__(), lambda: made.__aexit__(None, None, None)
        return made, _nothing

    def _start_closing(self, instance: _Instance[T]) -> "asyncio.Task[None]":
        """Close an instance in a task of its own, unless that goes on already."""
        if instance.closing is None or (instance.closing.done() and not instance.gone.done()):
            instance.closing = instance.start(self._close_instance(instance))
        return instance.closing

    async def _close_instance(self, instance: _Instance[T]) -> None:
        await asyncio.wait((instance.opening,))
        if not instance.gone.done():
            await self._close_opened(instance)

    async def _close_opened(self, instance: _Instance[T]) -> None:
        self._forget(instance)  # first: whoever asks from now on gets a new one
        waiting = True
        try:
            async with asyncio.timeout(self._close_timeout):
                await instance.unused.wait()
                waiting = False
                await instance.close()
        except asyncio.CancelledError as cancelled:
            if not waiting:
                self._closed_with(instance, cancelled)
            raise  # if it was still leased, the loop's end closes it
        except BaseException as error:
            self._closed_with(instance, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._closed_with(instance, None)

    def _close_at_end(self, instance: _Instance[T]) -> None:
        instance.leave_ending = instance.ending.add(lambda: self._end(instance), lambda: self._drop(instance))

    async def _end(self, instance: _Instance[T]) -> None:
        """Close an instance because its loop ends; one that is still opening is not waited for."""
        instance.opening.cancel()
        closing = self._start_closing(instance)
        try:
            # Each of the two should end by itself; one that ignores its cancellation is not waited for.
            await asyncio.wait((closing,), timeout=2 * self._close_timeout + LAST_CHANCE)
        finally:
            if not closing.done():
                closing.cancel()
                await asyncio.wait((closing,), timeout=LAST_CHANCE)
            if instance.is_open:
                self._closed_with(instance, TimeoutError("it was not closed when its loop had to end"))

    def _drop(self, instance: _Instance[T]) -> None:
        """Let an instance go, unclosed: its loop is closed, and another one must not await it."""
        self._part(instance)
        if instance.is_open:
            with self._lock:
                self._dropped += 1
            emit(ResourceDropped(self.name, instance.ending.affinity))

    def _closed_with(self, instance: _Instance[T], error: BaseException | None) -> None:
        if instance.gone.done():
            return  # let go before; the first report counts
        self._part(instance)
        with self._lock:
            self._closed += 1
        if error is None:
            emit(ResourceClosed(self.name, instance.ending.affinity))
        else:
            emit(ResourceCloseFailed(self.name, instance.ending.affinity, f"{type(error).__name__}: {error}"))

    def _part(self, instance: _Instance[T]) -> None:
        """Tell those who wait that the instance is gone; nothing of it is left on its loop."""
        self._forget(instance)
        instance.leave_ending()
        instance.gone.set_result(None)

    def _forget(self, instance: _Instance[T]) -> None:
        with self._lock:
            for loop, each in tuple(self._instances.items()):
                if each is instance:
                    del self._instances[loop]


@coroutine
def _unnoticed(opening: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """
    Await an opening while the loop does not notice the asynchronous generators that begin in it.

    A resource made by `contextlib.asynccontextmanager` is such a generator, and so are those it
    entered itself. The loop's end would close them all at the same time, not last opened first and
    not by their ``__aexit__``. The loop's finalizer stays: it closes what the opening gave up.
    """
    step: Callable[[], Any] = partial(opening.send, None)
    while True:
        noticing = sys.get_asyncgen_hooks().firstiter  # of the thread: off during our own steps only
        sys.set_asyncgen_hooks(firstiter=None)
        try:
            awaited = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            del step  # it may hold an exception whose traceback holds this frame
            sys.set_asyncgen_hooks(firstiter=noticing)
        try:
            step = partial(opening.send, (yield awaited))
        except BaseException as error:
            step = partial(opening.throw, error)


def _is_context_manager(made: object) -> bool:
    return hasattr(type(made), "__aenter__") and hasattr(type(made), "__aexit__")


async def _call(method: Callable[[], object]) -> None:
    result = method()
    if inspect.isawaitable(result):
        await result


async def _nothing() -> None:
    pass
