"""The end of a loop: what is done on it before it closes, last registered first, whoever owns it."""

import asyncio
import atexit
import itertools
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from weakref import WeakKeyDictionary, WeakSet

from homeloop._affinity import Affinity
from homeloop._events import logger
from homeloop.runtime._fork import forget_in_child, keep_untouched
from homeloop.runtime._hosts import await_before_kill
from homeloop.runtime._originals import allocate_lock, real_threading
from homeloop.runtime._probe import loop_affinity
from homeloop.runtime._waiting import wait_done

Close = Callable[[], Awaitable[None]]
Lost = Callable[[], None]

LAST_CHANCE = 0.1
"""Seconds that each closer still gets when the end is cancelled because its time is over. A guess."""

AT_EXIT = 1.0
"""Seconds that a loop gets which nobody ended before the process exits. A guess; Jupyter kills after five."""

_KNOWN = ("asyncio", "uvloop")
"""Packages whose loops run without anything else, so that they can be run once more at the exit."""


class Ending:
    """
    What is to be done before one loop closes.

    It needs no cooperation of the loop's owner: a started asynchronous generator is parked on the
    loop, and `asyncio.run`, uvicorn, pytest plugins and our own runtimes all await
    ``loop.shutdown_asyncgens()`` before they close a loop. That closes the generator, and the
    generator calls the closers, on the loop and while it still runs.

    Some owners never close their loop: a Jupyter kernel, a daemon thread, many a script. What is on
    such a loop is ended when the process exits: on the thread that runs the loop, else on the main
    thread, which runs the loop once more for it. Uvicorn, stopped by SIGTERM, does not even exit:
    what is on its loop is closed after its own shutdown.

    A forked child inherits the parked generator with its parent's loop, and may end that: by then the
    generator has nothing to call.

    Attributes:
        affinity: The loop.
        begun: Whether the end has begun, or the loop was left behind. It is set before the first closer is
            called and stays set.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.affinity: Affinity = loop_affinity(loop)
        # Asyncio's own loops tell when it is too late: nothing parked now would ever be closed.
        self.begun: bool = getattr(loop, "_asyncgens_shutdown_called", False)
        self._closers: dict[int, tuple[Close, Lost, Lost | None]] = {}
        self._numbers = itertools.count()
        self._parked: AsyncGenerator[None, None] | None = None
        self._thread = real_threading().current_thread()
        if not self.begun:
            self._park()

    def add(self, close: Close, lost: Lost, left: Lost | None = None) -> Callable[[], None]:
        """
        Have ``close`` awaited on the loop before it closes, before everything that was added earlier.

        When the end has no time left, ``close`` is cancelled; it reports that itself. ``lost`` is
        called instead, on any thread, when it is noticed that the loop was closed without an end. ``left``
        is called, on any thread, when the loop is blocked and its owner gives it up: it may never go on, but if
        it does, ``close`` is still awaited.

        Returns:
            A function that takes them back; calling it twice is harmless.

        Thread: the loop's own; the returned function on any.
        """
        await_before_kill(self._close_all)
        number = next(self._numbers)
        self._closers[number] = (close, lost, left)
        return lambda: self._take(number)

    @property
    def is_deserted(self) -> bool:
        """Whether the thread that the loop ran on is the main thread, which exits, or has ended."""
        return self._thread is real_threading().main_thread() or not self._thread.is_alive()

    def leave(self) -> None:
        """Tell everyone who wants to know that nobody waits for the loop any more. Thread: any."""
        self.begun = True
        for _, _, left in tuple(self._closers.values()):
            if left is not None:
                left()

    async def finish(self) -> None:
        """
        End what is on the loop without ending the loop: its owner did not, and the process exits.

        Raises:
            TimeoutError: It took more than `AT_EXIT`; what hung was cancelled.
        """
        if self._parked is not None:
            async with asyncio.timeout(AT_EXIT):
                await self._parked.aclose()

    def lose(self) -> None:
        """Tell everyone that the loop was closed without an end."""
        while self._closers:
            self._closers.popitem()[1][1]()

    def forget_parent(self) -> None:
        """Call nobody, in a forked child, when the loop ends there: what is on it is the parent's."""
        keep_untouched(self._closers)
        self._closers = {}

    def _take(self, number: int) -> None:
        self._closers.pop(number, None)

    def _park(self) -> None:
        self._parked = self._close_at_end()
        try:
            self._parked.__anext__().send(None)  # its first step does not wait
        except StopIteration:
            pass

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.begun = True
            try:
                await self._close_all()
            finally:
                self._parked = None  # it refers to the loop, which may go now

    async def _close_all(self) -> None:
        cancelled: asyncio.CancelledError | None = None
        while self._closers:
            close, _, _ = self._closers.popitem()[1]
            try:
                async with asyncio.timeout(None if cancelled is None else LAST_CHANCE):
                    await close()
            except asyncio.CancelledError as error:
                cancelled = error  # one that hangs must not keep the others from closing
            except TimeoutError:
                pass  # it knows, and has told so
            except Exception:
                logger.exception("something on %s did not close", self.affinity)
        if cancelled is not None:
            raise cancelled


class _Endings:
    """The endings of this process's loops."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Ending] = WeakKeyDictionary()
        self._runtimes: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._at_exit = False
        self._lock = allocate_lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> Ending:
        ending = self._by_loop.get(loop)
        if ending is None:
            self.notice_closed()
            ending = Ending(loop)
            with self._lock:
                self._by_loop[loop] = ending
                forget_in_child(self)
                if not self._at_exit:
                    self._at_exit = True
                    self._register()
        return ending

    def leave_to_runtime(self, loop: asyncio.AbstractEventLoop) -> None:
        self._runtimes.add(loop)

    def _register(self) -> None:
        atexit.register(self.finish)
        # Exit handlers run when all threads that are no daemons have ended, and asyncio's workers with them. A
        # resource that has such a thread (aiosqlite) would keep it for ever, and one that closes by
        # asyncio.to_thread() could not.
        before_threads_are_joined = getattr(threading, "_register_atexit", None)
        if before_threads_are_joined is not None:
            try:
                before_threads_are_joined(self.finish_deserted)
            except RuntimeError:  # the interpreter is exiting
                pass

    def finish_deserted(self) -> None:
        """End, when the main thread is done, what is on loops that nobody can run any more."""
        for loop, ending in self._unfinished().items():
            if ending.is_deserted:
                _finish_here(loop, ending)

    def finish(self) -> None:
        """End everything: the process exits."""
        endings = self._unfinished()
        finished = [_finish_where_it_runs(loop, ending) for loop, ending in endings.items() if loop.is_running()]
        for loop, ending in endings.items():
            _finish_here(loop, ending)
        for future in finished:
            if future is not None:
                wait_done(future, AT_EXIT + LAST_CHANCE)

    def _unfinished(self) -> dict[asyncio.AbstractEventLoop, Ending]:
        self.notice_closed()
        with self._lock:
            return {loop: ending for loop, ending in self._by_loop.items() if loop not in self._runtimes}

    def notice_closed(self) -> None:
        with self._lock:
            closed = [self._by_loop.pop(loop) for loop in list(self._by_loop) if loop.is_closed()]
        for ending in closed:
            ending.lose()

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            ending = self._by_loop.get(loop)
        if ending is not None:
            ending.leave()

    def forget_parent(self) -> None:
        """Start anew in a forked child; the parent's loops stay the parent's."""
        for ending in list(self._by_loop.values()):
            ending.forget_parent()
        keep_untouched(self._by_loop)
        self._by_loop = WeakKeyDictionary()
        self._lock = allocate_lock()


def _finish_where_it_runs(loop: asyncio.AbstractEventLoop, ending: Ending) -> "Future[None] | None":
    finishing = ending.finish()
    try:
        return asyncio.run_coroutine_threadsafe(finishing, loop)
    except RuntimeError:  # it has just been closed
        finishing.close()
        return None


def _finish_here(loop: asyncio.AbstractEventLoop, ending: Ending) -> None:
    """Run a loop once more, unless it runs, or cannot without something else."""
    if loop.is_running() or type(loop).__module__.partition(".")[0] not in _KNOWN:
        return
    finishing = ending.finish()
    try:
        loop.run_until_complete(finishing)
    except Exception as error:
        finishing.close()  # it may not have begun
        logger.warning("what is on %s did not end at the exit: %r", ending.affinity, error)


_endings = _Endings()


def loop_ending(loop: asyncio.AbstractEventLoop) -> Ending:
    """
    Return the ending of the running loop; the first call parks its generator there.

    Thread: the loop's own, while it runs.
    """
    return _endings.of(loop)


def leave_to_runtime(loop: asyncio.AbstractEventLoop) -> None:
    """Do not end a loop at the process's exit: its runtime does, after the last call. Thread: any."""
    _endings.leave_to_runtime(loop)


def notice_closed_loops() -> None:
    """Tell those who registered with loops that were closed without an end. Thread: any."""
    _endings.notice_closed()


def leave_loop_behind(loop: asyncio.AbstractEventLoop) -> None:
    """Tell those who registered with a loop that it is blocked and nobody waits for it any more. Thread: any."""
    _endings.leave(loop)
