"""
The life of a runtime: its loop opened with the first call, replaced when it has ended, and closed.

One home after the other; in between, and before the first, there is none.
"""

import asyncio
import atexit
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from homeloop._affinity import Affinity
from homeloop._events import RuntimeStuck, TaskLeft, emit
from homeloop.errors import CallTimeoutError, RuntimeClosedError, RuntimeDiedError, WrongThreadError
from homeloop.runtime import _waits, _workers
from homeloop.runtime._abandoned import Abandoned, AbandonedCall
from homeloop.runtime._arguments import check_seconds
from homeloop.runtime._fork import before_child_ends, forget_in_child, keep_untouched
from homeloop.runtime._home import Admission, Home, snapshot
from homeloop.runtime._originals import RLock, get_ident
from homeloop.runtime._probe import callable_name, thread_stack
from homeloop.runtime._workers import WorkerStatistics

_CLOSE_MARGIN = 2.0
"""Seconds between a home's own deadline and our giving up on its thread. A guess."""


@dataclass(frozen=True, slots=True)
class RuntimeStatistics:
    """
    What a runtime is doing.

    Attributes:
        home: The loop it runs now; None before the first call and after the end.
        in_flight: Calls that have begun and not finished, abandoned ones included.
        finished: Calls that finished on the present loop.
        abandoned: Calls that nobody waits for any more and that still run, by number.
        restarts: Loops it lost: ended by themselves, or left behind in a parent process.
        waiting: Calls that wait for a place of ``max_in_flight``.
        abandoned_calls: The abandoned ones that still run, by name, the oldest first.
        abandoned_total: All calls that were ever abandoned in this process; it never falls.
        workers: The threads of the loop's executor, which `asyncio.to_thread` uses; None without a loop.
    """

    home: Affinity | None
    in_flight: int
    finished: int
    abandoned: int
    restarts: int
    waiting: int = 0
    abandoned_calls: tuple[AbandonedCall, ...] = ()
    abandoned_total: int = 0
    workers: WorkerStatistics | None = None


@dataclass(frozen=True, slots=True)
class Residence:
    """The loop that a runtime runs now, and the thread it runs on."""

    home: Affinity
    loop: asyncio.AbstractEventLoop
    thread_ident: int


class Life:
    """
    What a runtime has beside its calls: a home, opened when it is wanted and ended by `close`.

    Thread: any, for every method, unless it says otherwise.
    """

    def __init__(
        self, name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop], admission: Admission
    ) -> None:
        self.name = name
        self._loop_factory = loop_factory
        self._admission = admission
        self._abandoned = Abandoned()
        self._home: Home | None = None
        self._starting = RLock()  # re-entered by signal handlers and finalizers
        self._opening: Home | None = None
        self._launching = False
        self._closed = False
        self._restarts = 0
        self._dropped: weakref.finalize[..., Life] | None = None
        forget_in_child(self)

    def start(self) -> None:
        """
        Start the loop now instead of with the first call. Does nothing if it runs.

        Raises:
            RuntimeClosedError: The runtime is closed.
            RuntimeDiedError: No thread can be started, because the interpreter exits or is a
                sub-interpreter without daemon threads; or the loop ended as soon as it was started.
            TypeError, ConfigurationError: The loop factory did not return a new event loop.
            BaseException: What the loop factory raised.

        Cancellation: an exception raised in the waiting thread is raised at once. The start goes on,
            and the next call waits for it.
        """
        self._running_home()

    def close(self, timeout: float = 5.0) -> None:
        """
        End the loop: cancel what it runs, await the clean-up, close what lives on it. Idempotent.

        Tasks are cancelled and awaited, then asynchronous generators and with them loop-bound
        resources are closed, last opened first, then the loop. Calls that run are
        answered with `RuntimeDiedError`, those that have not begun with `RuntimeClosedError`.

        Args:
            timeout: Seconds for all of it. What is left then is named in the log and let go; a
                loop that is blocked is left behind with its thread, its calls are answered.

        Raises:
            WrongThreadError: Called on the loop's own thread; nothing was closed.
            TypeError, ValueError: The timeout is no number of seconds, or negative; nothing was closed.

        Thread: any except the loop's own. Must not be called while that thread waits for the caller.
        """
        check_seconds("timeout", timeout)
        home = self._home or self._opening
        if home is not None and home.is_here:
            raise WrongThreadError("close()", home.thread.name)
        self._stop(timeout)
        self._join(timeout + _CLOSE_MARGIN)

    def replace_loop(self, budget: float = 5.0) -> None:
        """
        Leave a loop behind that is blocked; the next call gets a fresh one. Does nothing without a loop.

        The log names the line that blocks it. Its calls are answered with `RuntimeDiedError`. Should it go on
        after all, it ends as `close` ends one: tasks are cancelled and awaited, what lives on it is closed.

        Args:
            budget: Seconds for that end, from now on; never waited for here.

        Raises:
            WrongThreadError: Called on the loop's own thread; nothing was changed.
            TypeError, ValueError: The budget is no number of seconds, or negative; nothing was changed.

        Thread: any except the loop's own.
        """
        check_seconds("budget", budget)
        if self.is_current:
            assert self._home is not None
            raise WrongThreadError("replace_loop()", self._home.thread.name)
        with self._starting:
            home = self._home
            if home is None or home.ended:
                return
            home.stop(budget)
            home.leave_behind()
        emit(RuntimeStuck(self.name, home.affinity, thread_stack(home.thread.ident)))

    def _stop(self, budget: float) -> None:
        self._closed = True
        with self._starting:
            for home in (self._home, self._opening):
                if home is not None:
                    home.stop(budget)  # once more after a close() that was interrupted
            if self._dropped is not None:
                self._dropped.detach()

    def _join(self, timeout: float) -> None:
        with self._starting:
            home = self._home or self._opening
        if home is None:
            return
        if not home.wait_end(timeout):
            emit(RuntimeStuck(self.name, home.affinity, thread_stack(home.thread.ident)))
            for left in self._abandoned.records():
                emit(TaskLeft(self.name, left.what, left.waiting_at))
            home.leave_behind()
        self._home = self._opening = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> RuntimeStatistics:
        """Return what the runtime is doing now. Never starts it."""
        home = self._home or self._opening
        if home is None or home.ended or not home.has_started:
            return RuntimeStatistics(None, 0, 0, 0, self._restarts, abandoned_total=self._abandoned.total)
        abandoned = self._abandoned.records()
        return RuntimeStatistics(
            home.affinity,
            len(home.in_flight),
            home.done_count,
            len(abandoned),
            self._restarts,
            home.waiting,
            abandoned,
            self._abandoned.total,
            home.workers.statistics(),
        )

    def residence(self) -> Residence | None:
        """Return the loop that the runtime runs now; None before the first call and after the end."""
        home = self._home or self._opening
        if home is None or home.ended or not home.has_started:
            return None
        return Residence(home.affinity, home.loop, home.thread.ident or 0)

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is this runtime's own, on which `run` is refused."""
        home = self._home or self._opening
        return home is not None and home.is_here

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called; a closed runtime takes no more calls."""
        return self._closed

    def __repr__(self) -> str:
        home = self._home
        state = "closed" if self._closed else "not started" if home is None else f"on {home.affinity}"
        return f"<LoopRuntime {self.name!r} {state}>"

    def forget_parent(self) -> None:
        """Forget, in a forked child, the loop that stayed with the parent. Called by the fork hook."""
        self._starting = RLock()
        self._abandoned = Abandoned()
        self._launching = False
        _waits.forget_parent()
        _workers.forget_parent()
        home, self._home, self._opening = self._home or self._opening, None, None
        if home is not None:
            if self._dropped is not None:
                self._dropped.detach()
            keep_untouched(home)
            home.inherited = True
            if home.thread.ident == get_ident() and not home.ended:  # else the number is another's now
                home.end_with_child()
            self._restarts += 1

    # -- inside -----------------------------------------------------------------------------------

    def _running_home(self) -> Home:
        home = self._home
        if home is not None and not home.ended and not self._closed:
            return home
        opened = self._open_home(None)
        assert opened is not None  # without a bound it waits until there is one
        return opened

    def _home_within(self, timeout: float | None, fn: Callable[..., object]) -> tuple[Home, float | None]:
        """Return a running home, and what is left of the timeout for a call there."""
        if timeout is None:
            return self._running_home(), None
        deadline = time.monotonic() + timeout
        home = self._open_home(timeout)
        if home is None:
            raise CallTimeoutError(callable_name(fn), timeout, never_began="the loop was still being started")
        return home, max(0.0, deadline - time.monotonic())

    def _open_home(self, timeout: float | None) -> Home | None:
        """Return the home, opened if need be; None if it did not run after ``timeout`` seconds."""
        home = self._home_or_opening()
        try:
            if not home.wait_started(timeout):
                return None
        except BaseException:
            if home.ended:  # else the caller was interrupted: the start goes on, and the next call waits for it
                self._settle_start(home, None)
            raise
        self._settle_start(home, home)
        return home

    def _settle_start(self, started: Home, home: Home | None) -> None:
        with self._starting:
            if self._opening is started:
                self._opening, self._home = None, home

    def _home_or_opening(self) -> Home:
        opening = self._opening
        if opening is not None and opening.is_here:
            raise WrongThreadError("run()", opening.thread.name)
        with self._starting:
            if self._closed:
                raise RuntimeClosedError(self.name)
            if sys.is_finalizing():
                raise RuntimeDiedError(self.name, "the interpreter is exiting")
            if self._home is not None:
                if not self._home.ended:
                    return self._home
                self._home = None
                self._restarts += 1
            if self._launching:  # the caller is a signal handler, or a finalizer
                raise RuntimeDiedError(self.name, "its loop is just being started by this very thread")
            if self._opening is not None and not self._opening.ended:
                return self._opening
            return self._launch()

    def _launch(self) -> Home:
        _close_at_exit(self)
        if self._opening is not None and self._opening.has_started:
            self._restarts += 1  # it has come and gone unseen
        self._opening = None
        if self._dropped is not None:
            self._dropped.detach()  # it would keep the dead home
        try:
            home = Home(self.name, self._loop_factory, self._restarts, self._admission, self._abandoned)
            if (other := self._home or self._opening) is not None:
                return other  # of a finalizer that ran meanwhile
            self._launching = True
            self._opening = home
            # A runtime dropped without close() takes its loop along: stop() only posts, so this may
            # run in any thread, at any collection. At exit `_close_all` does it properly.
            self._dropped = weakref.finalize(self, home.drop)
            self._dropped.atexit = False
            home.launch()
        except BaseException as error:
            if self._opening is not None:
                self._opening.stop(0.0)  # interrupted: it must not go on without an owner
                self._opening = None
            if isinstance(error, RuntimeError):
                raise RuntimeDiedError(self.name, f"its thread cannot be started ({error})") from error
            raise
        finally:
            self._launching = False
        return home


_open: weakref.WeakSet[Life] = weakref.WeakSet()
_at_exit = False
_exited = False


def open_runtimes() -> tuple[Life, ...]:
    """Return the runtimes of this process that were started and not closed. Thread: any."""
    return tuple(life for life in snapshot(_open) if not life.is_closed)


def _close_at_exit(life: Life) -> None:
    """Drain the runtime when the interpreter exits."""
    global _at_exit
    _open.add(life)
    if not _at_exit:
        _at_exit = True
        atexit.register(_close_all)
        before_child_ends(_close_all)


def _close_all() -> None:
    global _exited
    _exited = True
    deadline = time.monotonic() + _EXIT_BUDGET
    runtimes = snapshot(_open)
    for runtime in runtimes:  # all at once: together they take no longer than the slowest
        runtime._stop(_EXIT_BUDGET - _EXIT_MARGIN)  # pyright: ignore[reportPrivateUsage] - same module
    for runtime in runtimes:
        runtime._join(max(0.0, deadline - time.monotonic()))  # pyright: ignore[reportPrivateUsage]


_EXIT_BUDGET = 5.0
"""Seconds that all runtimes together may keep the interpreter from exiting."""

_EXIT_MARGIN = 1.0
"""Seconds of it in which loops whose tasks took the rest close what lives on them. A guess."""


def has_exited() -> bool:
    """Tell whether the interpreter has begun to exit, and runtimes have been closed for good."""
    return _exited
