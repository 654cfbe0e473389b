"""One resource on its loop, from the first call of its factory until it is gone."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, Generic, Protocol, TypeVar

from homeloop._events import Event, ResourceClosed, ResourceCloseFailed, ResourceDropped, ResourceOpened, emit
from homeloop._figures import PoolStatistics
from homeloop.errors import LoopEndingError
from homeloop.resources._guard import guarded, running_loop
from homeloop.resources._measure import measured
from homeloop.resources._recipe import Close
from homeloop.resources._scope import Scope
from homeloop.resources._statistics import Ledger
from homeloop.runtime import LAST_CHANCE, Ending, use_original_lock

T = TypeVar("T")


class Keeper(Protocol):
    """Who hands an instance out, and so must forget it in time."""

    def forget(self, instance: Any) -> None:
        """Do not hand it out any more. Thread: the instance's, or any when its loop is closed."""
        ...

    def settle(self) -> None:
        """Look what may be evicted, for an instance has just become idle. Thread: the instance's."""
        ...


class Instance(Generic[T]):
    """
    A resource that opens, is open, or closes. Everything happens on its loop, unless said otherwise.

    Its opening and its closing are tasks of their own, so that nobody's cancellation hits them, in
    one context, so that a context variable set by the one can be reset by the other.

    Attributes:
        value: The resource, once it is open.
        is_open: Whether it is open, or was before its closing.
        is_current: Whether it is open and still handed out.
        opening: The task that opens it.
        gone: Completed when nothing of it is left.
        since: When it was open, or else when its opening began; seconds, monotonic.
        scope: The scope it belongs to.
        key: The key it was opened for.
        used: When somebody last asked for it or gave it back; seconds, monotonic.
    """

    value: T
    opening: "asyncio.Task[None]"
    _close: Close
    _leave_ending: Callable[[], None]

    def __init__(
        self,
        name: str,
        close_timeout: float,
        loop: asyncio.AbstractEventLoop,
        ending: Ending,
        scope: Scope | None,
        keeper: Keeper,
        ledger: "Ledger[Instance[T]]",
        key: object,
    ) -> None:
        self.loop = loop
        self.scope = scope
        self.key = key
        self.home = ending.affinity
        self.is_open = self.is_current = False
        self.leases = self.waiting = self.hits = 0
        self.since = self.used = time.monotonic()
        self.gone: Future[None] = Future()
        self.gone.set_running_or_notify_cancel()  # nobody who waits for it may cancel it
        use_original_lock(self.gone)
        self.close_timeout = close_timeout
        self._name = name
        self._ending = ending
        self._keeper = keeper
        self._ledger = ledger
        self._context = Context() if scope is None else scope.new_context()
        self._measure: Callable[[], PoolStatistics | None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._given_up = False  # while it was opening, for that took too long
        self._made = asyncio.Event()  # or it will never be
        self._unused = asyncio.Event()
        self._unused.set()

    # -- use ---------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether it is open and nobody holds it or is about to."""
        return self.is_open and not self.leases and not self.waiting

    def pool(self) -> PoolStatistics | None:
        """Return what its driver's pool tells, while it is open; None if nothing. Thread: any."""
        return self._measure() if self.is_current and self._measure is not None else None

    def take(self) -> None:
        """Lease it: it is not closed until it is given back."""
        self.leases += 1
        self._unused.clear()

    def give_back(self) -> None:
        """Give a lease back. Thread: any, for who holds one may be garbage, which is collected anywhere."""
        if running_loop() is self.loop:
            self._given_back()
            return
        try:
            self.loop.call_soon_threadsafe(self._given_back, context=self._context)
        except RuntimeError:
            pass  # the loop is closed: nobody waits there any more

    def _given_back(self) -> None:
        self.leases -= 1
        self.used = time.monotonic()
        if not self.leases:
            self._unused.set()
            self._keeper.settle()

    async def wait_open(self) -> None:
        """
        Wait until it is open, or was given up because its loop or its scope ends, or it should be closed.

        Raises:
            BaseException: What the factory raised.

        Cancellation: leaves the opening to the others who wait for it.
        """
        self.waiting += 1
        try:
            await asyncio.wait((self.opening,))  # unlike awaiting it, this does not cancel it with us
            if not (self.opening.cancelled() and (self._given_up or self._is_over())):
                self.opening.result()
        finally:
            self.waiting -= 1
            try:
                # Later, when the caller may have leased it; from any thread, as in give_back.
                self.loop.call_soon_threadsafe(self._keeper.settle, context=self._context)
            except RuntimeError:
                pass
            del self  # or the error's traceback would hold the task that holds the error

    # -- opening -----------------------------------------------------------------------------------

    def begin(self, make: Callable[[], Coroutine[Any, Any, tuple[T, Close]]]) -> None:
        """
        Begin to open it.

        Raises:
            LifecycleError: Its loop or its scope ends; ``make`` was not called.
        """
        if self._ending.begun:
            raise LoopEndingError(self._name, str(self.home))
        if self.scope is not None:
            self.scope.add(self, self._name)
        self._leave_ending = self._ending.add(self._end, self._drop)
        self.opening = self._start(self._open(make))
        self.opening.add_done_callback(self._opening_ended, context=self._context)
        self._ledger.begin(self)

    def _is_over(self) -> bool:
        return self._ending.begun or (self.scope is not None and self.scope.ended)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        # Not through the loop's task factory, for an eager one would run it too early.
        return asyncio.Task(coroutine, loop=self.loop, context=self._context)

    async def _open(self, make: Callable[[], Coroutine[Any, Any, tuple[T, Close]]]) -> None:
        try:
            made, self._close = await make()
            self.value = guarded(made, self.home, self.loop)
            self._measure = measured(self.value)
        except BaseException as error:
            if isinstance(error, Exception):
                error.add_note(f"while {self._name} was opened on {self.home}")
            self._part(None, failed=1)
            self._made.set()
            del self  # as in wait_open
            raise
        self._ledger.count_opened()
        emit(ResourceOpened(self._name, self.home))
        self._made.set()
        if self._is_over():  # it would not be closed any more
            self.forget()
            await asyncio.wait((self.start_closing(),))
            return
        self.since = self.used = time.monotonic()
        self.is_open = self.is_current = True
        self._leave_ending()
        self._leave_ending = self._ending.add(self._end, self._drop)  # before what was opened meanwhile
        if self.scope is not None:
            self.scope.move_last(self)
        self._keeper.settle()

    def _opening_ended(self, _: object) -> None:
        if not self._made.is_set():  # it was cancelled before its first step
            self._part(None, failed=1)
            self._made.set()

    # -- closing -----------------------------------------------------------------------------------

    def start_closing(self) -> "asyncio.Task[None]":
        """Close it in a task of its own, when its leases are given back, unless that goes on already."""
        if self._closing is None or (self._closing.done() and not self.gone.done()):
            self._closing = self._start(self._close_when_made())
            # Who ends a loop cancels all tasks first, and would cut this one off: hidden, it goes on, and
            # our part of the end waits for it. Source: docs.python.org/3/library/asyncio-extending.html
            asyncio.tasks._unregister_task(self._closing)  # pyright: ignore[reportPrivateUsage] - documented
        return self._closing

    @property
    def is_closed_here(self) -> bool:
        """Whether the running task is the one that closes it, which must not wait for itself."""
        return self._closing is not None and asyncio.current_task() is self._closing

    def give_up(self) -> "asyncio.Task[None]":
        """Close it; if it is still opening, that is cancelled."""
        self.opening.cancel()
        return self.start_closing()

    async def _end(self) -> None:
        """
        Close it because its loop ends; afterwards nobody waits for it any more.

        Cancellation: its closing is cancelled, and it is let go.
        """
        closing = self.give_up()
        try:
            # Each of the two should end by itself; one that ignores its cancellation is not waited for.
            await asyncio.wait((closing,), timeout=2 * self.close_timeout + LAST_CHANCE)
        finally:
            if not closing.done():
                closing.cancel()
                await asyncio.wait((closing,), timeout=2 * LAST_CHANCE)
            if not closing.done():  # whoever looks for tasks that were left may find it
                asyncio.tasks._register_task(closing)  # pyright: ignore[reportPrivateUsage] - documented
            if self._made.is_set():
                self._closed_with(TimeoutError("it was not closed when its loop had to end"))

    async def _close_when_made(self) -> None:
        try:
            async with asyncio.timeout(self.close_timeout):
                await self._made.wait()
        except TimeoutError:  # the opening hangs
            self._given_up = True
            self.opening.cancel()
            try:
                async with asyncio.timeout(self.close_timeout):
                    await self._made.wait()
            except TimeoutError:  # it ignores its cancellation: what it may still open is closed with the loop
                return
        if not self.gone.done():
            await self._close_opened()

    async def _close_opened(self) -> None:
        self.forget()  # first: whoever asks from now on gets a new one
        deadline = self.loop.time() + self.close_timeout
        late: TimeoutError | asyncio.CancelledError | None = None
        try:
            async with asyncio.timeout_at(deadline):
                await self._unused.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            # Closed all the same: those who hold it would have to do that, and do not know.
            late, deadline = error, 0.0
        bound = asyncio.timeout_at(max(deadline, self.loop.time() + LAST_CHANCE))
        try:
            async with bound:
                await self._close()
        except BaseException as error:
            expired = bound.expired() and isinstance(error, TimeoutError)
            self._closed_with(TimeoutError("it did not close in time and was cancelled") if expired else error)
            if not isinstance(error, Exception):
                raise
        else:
            self._closed_with(late and TimeoutError("closed before all its leases were given back"))
        if isinstance(late, asyncio.CancelledError):
            try:
                raise late
            finally:
                del late  # or its traceback's frame and it would keep each other alive

    def forget(self) -> None:
        """Do not hand it out any more."""
        self.is_current = False
        self._keeper.forget(self)

    def _drop(self) -> None:
        """Let it go, unclosed: its loop is closed, and another one must not await it. Thread: any."""
        self._part(ResourceDropped(self._name, self.home) if self.is_open else None, dropped=int(self.is_open))

    def _closed_with(self, error: BaseException | None) -> None:
        if error is None:
            event: Event = ResourceClosed(self._name, self.home)
        else:
            event = ResourceCloseFailed(self._name, self.home, f"{type(error).__name__}: {error}")
        self._part(event, closed=1)

    def _part(self, event: Event | None, **how: int) -> None:
        """Tell of it, and then those who wait that it is gone; nothing of it is left on its loop."""
        if self.gone.done():
            return  # let go before, and now its tasks are collected; the first report counts
        self.forget()
        self._leave_ending()
        if self.scope is not None:
            self.scope.remove(self)
        self._ledger.end(self, **how)
        if event is not None:
            emit(event)
        self.gone.set_result(None)
