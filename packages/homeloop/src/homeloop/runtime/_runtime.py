"""
The runtime: the handle through which any code reaches a loop that is not its own.

Over 400 lines, most of them the docstrings of its public face, which belong in one place.
"""

import asyncio
import atexit
import sys
import threading
import time
import weakref
from _thread import allocate_lock, get_ident
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial, wraps
from types import CoroutineType, TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, TypeVarTuple, Unpack, cast

from homeloop._affinity import Affinity
from homeloop._events import CallAbandoned, CleanUpFailed, RuntimeStuck, emit
from homeloop.errors import CallTimeoutError, RuntimeClosedError, RuntimeDiedError, WrongThreadError
from homeloop.runtime import _waits, _workers
from homeloop.runtime._call import Call
from homeloop.runtime._conversation import Entered, iterate
from homeloop.runtime._fork import forget_in_child, keep_untouched
from homeloop.runtime._future import CallFuture
from homeloop.runtime._home import Admission, Home
from homeloop.runtime._probe import thread_stack
from homeloop.runtime._waiting import answer, wait_for
from homeloop.runtime._waits import begin_wait, end_wait, loop_threads
from homeloop.runtime._workers import current_job

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BLOCKED = 0.5
"""A loop that has not even taken a cancellation after this many seconds counts as blocked."""


@dataclass(frozen=True, slots=True)
class RuntimeStatistics:
    """
    What a runtime is doing.

    Attributes:
        home: The loop it runs now; None before the first call and after the end.
        in_flight: Calls that have begun and not finished, abandoned ones included.
        finished: Calls that finished on the present loop.
        abandoned: Calls that nobody waits for any more and that still run.
        restarts: Loops it lost: ended by themselves, or left behind in a parent process.
    """

    home: Affinity | None
    in_flight: int
    finished: int
    abandoned: int
    restarts: int


class LoopRuntime:
    """
    Own an event loop on a thread of its own, and run async functions there for anybody.

    The loop starts with the first call and serves until `close`. A forked child gets a fresh loop
    on its first call; a loop that ended by itself is replaced on the next one.

    Args:
        name: For the thread, logs and errors.
        loop_factory: Makes the loop, on its thread; `asyncio.new_event_loop` by default, which asks
            the policy. Pass ``uvloop.new_event_loop`` for uvloop.
        grace: Seconds a cancelled call may take to clean up before it is abandoned.
        max_in_flight: Calls that may run at the same time, abandoned ones included; None for any
            number. Calls that calls make count too.
        when_full: What becomes of a call beyond that: ``"wait"`` for its turn, in order, within its
            timeout; ``"refuse"`` it with `OverloadedError`.
        propagate_context: Whether context variables that a function changed are changed for the
            caller of `run` and `arun` too. They always go in.

    Thread: any, for every method, unless it says otherwise.
    """

    def __init__(
        self,
        *,
        name: str = "homeloop",
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        grace: float = 5.0,
        max_in_flight: int | None = None,
        when_full: Literal["wait", "refuse"] = "wait",
        propagate_context: bool = True,
    ) -> None:
        if grace < 0:
            raise ValueError(f"grace must be at least 0 seconds, got {grace!r}")
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, got {max_in_flight!r}")
        if when_full not in ("wait", "refuse"):
            raise ValueError(f"when_full must be 'wait' or 'refuse', got {when_full!r}")
        self.name = name
        self.grace = grace
        self._admission = Admission(max_in_flight, when_full)
        self._propagate_context = propagate_context
        self._loop_factory = loop_factory
        self._home: Home | None = None
        self._starting = threading.RLock()  # re-entered by signal handlers and finalizers
        self._opening: Home | None = None
        self._closed = False
        self._restarts = 0
        self._dropped: weakref.finalize[..., LoopRuntime] | None = None
        forget_in_child(self)

    # -- calls ------------------------------------------------------------------------------------

    def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
        """
        Run ``fn(*args)`` on this runtime's loop and block until it finishes.

        Arguments, result and exceptions are the very same objects on both sides. The caller's
        context variables are visible to ``fn``, and those it changed are changed for the caller
        afterwards, also when it failed.

        Args:
            fn: Async function. For keyword arguments use `functools.partial`.
            timeout: Seconds ``fn`` may take; None for ever, 0 for «now or never». It then gets
                `grace` seconds more to clean up.

        Returns:
            What ``fn`` returns.

        Raises:
            CallTimeoutError: The timeout passed and ``fn`` was cancelled; the error tells where it
                waited. Its clean-up has run unless the error's ``abandoned`` is true.
            WrongThreadError: Called on the loop's own thread. ``fn`` was not called.
            DeadlockError: Called on the thread of another loop, for which this loop is waiting.
                ``fn`` was not called.
            OverloadedError: The runtime is full and refuses. ``fn`` was not called.
            RuntimeClosedError: The runtime is closed. ``fn`` was not called.
            RuntimeDiedError: The loop ended while ``fn`` ran, or no thread can be started because
                the interpreter exits.
            BaseException: Whatever ``fn`` raises, CancelledError included.

        Thread: any except the loop's own. On a thread whose own loop is running, that loop stands
            still meanwhile; use `arun` there.
        Cancellation: an exception raised in the waiting thread (Ctrl-C, a signal handler, an
            injected exception) cancels ``fn`` and is raised once its clean-up has run. Injected
            exceptions are noticed within half a second outside the main thread.
        Source: docs.python.org/3/library/asyncio-task.html#asyncio.run_coroutine_threadsafe
        """
        if not callable(fn):
            raise _not_callable(fn)
        return self._run(Call(fn, args, copy_context()), timeout)

    def _run(self, call: "Call[T]", timeout: float | None) -> T:
        home = self._running_home()
        ident = get_ident()
        if home.thread.ident == ident:
            raise WrongThreadError("run()", home.thread.name)
        waits = ident in loop_threads
        if waits:
            begin_wait(ident, home.thread.ident)
        job = current_job()
        if job is not None:
            job.begin_wait(lambda: home.cancel(call))
        done = allocate_lock()
        done.acquire()
        call.reply = done.release
        try:
            home.post(call)
            if not wait_for(done, timeout):
                self._expire(home, call, done, timeout)
        except CallTimeoutError:
            raise
        except BaseException as interrupt:
            self._interrupt(home, call, done, interrupt)
            raise
        finally:
            if job is not None:
                job.end_wait()
            if waits:
                end_wait(ident)
            if call.finished and self._propagate_context:
                call.bring_context_back()
        return _outcome(call)

    def _step(self, fn: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Run a step of a call that is in flight already: it takes no place of its own."""
        return self._run(Call(fn, args, copy_context(), counted=False), None)

    async def arun(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
        """
        Run ``fn(*args)`` on this runtime's loop from a coroutine on any loop, this one included.

        Args, returns and raises as `run`, except that no thread is refused. A cancelled caller
        cancels ``fn`` and goes on once its clean-up has run, or after `grace`.

        Thread: any with a running loop, which goes on running.
        """
        if not callable(fn):
            raise _not_callable(fn)
        home = self._running_home()
        loop = asyncio.get_running_loop()
        call = Call(fn, args, copy_context())
        answered: asyncio.Future[None] = loop.create_future()
        call.reply = lambda: answer(loop, answered)
        home.post(call)
        try:
            await asyncio.wait((answered,), timeout=timeout)
            if not answered.done():
                home.cancel(call)
                if await self._settle(answered):
                    raise asyncio.CancelledError
                if not call.finished or isinstance(call.error, asyncio.CancelledError):
                    raise self._timed_out(home, call, cast("float", timeout))
        except asyncio.CancelledError:
            home.cancel(call)
            await self._settle(answered)
            if not call.finished:
                self._give_up(home, call)
            elif isinstance(call.error, Exception):
                emit(CleanUpFailed(self.name, call.name, repr(call.take_error())))
            raise
        finally:
            if call.finished and self._propagate_context:
                call.bring_context_back()
        return _outcome(call)

    def submit(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> "Future[T]":
        """
        Start ``fn(*args)`` on this runtime's loop and return at once.

        The caller's context variables are visible to ``fn``; what it changes stays inside.

        Returns:
            A future. Cancelling it cancels ``fn``, also after it has begun; the future is then
            cancelled at once, while the clean-up of ``fn`` runs on the loop.

        Raises:
            RuntimeClosedError, RuntimeDiedError: as `run`.

        Thread: any, the loop's own included (but do not wait for the result there).
        """
        if not callable(fn):
            raise _not_callable(fn)
        home = self._running_home()
        call = Call(fn, args, copy_context())
        future: CallFuture[T] = CallFuture(self.name, lambda: home.cancel(call))
        call.reply = lambda: future.resolve(call)
        home.post(call)
        return future

    def iterate(self, fn: Callable[[Unpack[Ts]], AsyncGenerator[T, None]], *args: *Ts) -> Generator[T, None, None]:
        """
        Iterate an async generator from sync code: ``for item in runtime.iterate(rows, query)``.

        All of the generator runs in one task and in one context, a copy of the caller's at the
        first item, so time-outs and cancel scopes may span its yields.

        Args:
            fn: Async generator function.

        Returns:
            A generator. Closing it, or leaving the loop early and dropping it, runs the async
            generator's ``finally`` blocks before it returns.

        Raises:
            TypeError: ``fn`` cannot be called.
            BaseException: From ``next()``: what the generator raises (it is exhausted then), and
                what `run` raises.

        Thread: any except the loop's own, and not two at a time.
        Cancellation: an exception raised in the thread that waits for an item cancels the
            generator, waits for its clean-up, and ends the iteration.
        """
        if not callable(fn):
            raise _not_callable(fn)
        return iterate(self, self._step, partial(fn, *args))

    def enter(self, manager: AbstractAsyncContextManager[T, bool | None]) -> AbstractContextManager[T, bool]:
        """
        Enter an async context manager from sync code: ``with runtime.enter(client) as client``.

        Its ``__aenter__`` and ``__aexit__`` run in one task, which waits on the loop in between, in
        a copy of the caller's context. The manager sees what the body raises and may swallow it.

        Thread: any except the loop's own.
        Cancellation: as `run`, while it is entered and while it is left.
        """
        return Entered(self, self._step, manager)

    def sync(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        """
        Make an async function one that sync code may call; decorator.

        Thread, cancellation and raises as `run`, without a timeout.
        """

        @wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(partial(fn, *args, **kwargs))

        return call

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Start the loop now instead of with the first call. Does nothing if it runs.

        Raises:
            RuntimeClosedError: The runtime is closed.
            RuntimeDiedError: No thread can be started, because the interpreter exits.
            BaseException: What the loop factory raised.
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
                loop that is blocked is left behind with its thread.

        Raises:
            WrongThreadError: Called on the loop's own thread; nothing was closed.

        Thread: any except the loop's own. Must not be called while that thread waits for the caller.
        """
        home = self._home
        if home is not None and home.thread.ident == get_ident():
            raise WrongThreadError("close()", home.thread.name)
        self._stop(timeout)
        self._join(timeout)

    def _stop(self, timeout: float) -> None:
        self._closed = True
        with self._starting:
            home = self._home
            if home is not None and self._dropped is not None and self._dropped.detach():
                home.stop(timeout)

    def _join(self, timeout: float) -> None:
        home = self._home
        if home is None:
            return
        home.thread.join(timeout + _CLOSE_MARGIN)
        if home.thread.is_alive():
            emit(RuntimeStuck(self.name, home.affinity, thread_stack(home.thread.ident)))
        self._home = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> RuntimeStatistics:
        """Return what the runtime is doing now. Never starts it."""
        home = self._home
        if home is None or home.ended:
            return RuntimeStatistics(None, 0, 0, 0, self._restarts)
        return RuntimeStatistics(
            home.affinity, len(home.in_flight), home.done_count, len(home.abandoned), self._restarts
        )

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is this runtime's own, on which `run` is refused."""
        home = self._home
        return home is not None and home.thread.ident == get_ident()

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
        self._starting = threading.RLock()
        self._opening = None
        _waits.forget_parent()
        _workers.forget_parent()
        if self._home is not None:
            if self._dropped is not None:
                self._dropped.detach()
            keep_untouched(self._home)
            self._home = None
            self._restarts += 1

    # -- inside -----------------------------------------------------------------------------------

    def _running_home(self) -> Home:
        home = self._home
        if home is not None and not home.ended and not self._closed:
            return home
        return self._open_home()

    def _open_home(self) -> Home:
        opening = self._opening
        if opening is not None and opening.thread.ident == get_ident():
            raise WrongThreadError("run()", opening.thread.name)
        with self._starting:
            if self._closed:
                raise RuntimeClosedError(self.name)
            if sys.is_finalizing():
                raise RuntimeDiedError(self.name, "the interpreter is exiting")
            if self._opening is not None:
                raise RuntimeDiedError(self.name, "its loop is just being started by this very thread")
            if self._home is not None:
                if not self._home.ended:
                    return self._home
                if self._dropped is not None:
                    self._dropped.detach()  # it would keep the dead home
                self._home = None
                self._restarts += 1
            _close_at_exit(self)
            self._home = home = self._start_home()
            # A runtime dropped without close() takes its loop along: stop() only posts, so this may
            # run in any thread, at any collection. At exit `_close_all` does it properly.
            self._dropped = weakref.finalize(self, home.stop, 0.0)
            self._dropped.atexit = False
            return home

    def _start_home(self) -> Home:
        home = Home(self.name, self._loop_factory, self._restarts, self._admission)
        self._opening = home
        try:
            home.start()
        except BaseException as error:
            if home.thread.ident is None and isinstance(error, RuntimeError):
                raise RuntimeDiedError(self.name, f"its thread cannot be started ({error})") from error
            home.stop(0.0)  # interrupted: it must not go on without an owner
            raise
        finally:
            self._opening = None
        return home

    def _expire(self, home: Home, call: "Call[Any]", done: Any, timeout: float | None) -> None:
        """Cancel a call whose time is over and wait for its clean-up; return only if it finished well."""
        home.cancel(call)
        if not wait_for(done, min(_BLOCKED, self.grace)) and call.cancelled_at_loop:
            wait_for(done, max(0.0, self.grace - _BLOCKED))
        if call.finished and not isinstance(call.error, asyncio.CancelledError):
            return  # it finished or failed by itself: that outcome is the truth
        raise self._timed_out(home, call, cast("float", timeout))

    def _timed_out(self, home: Home, call: "Call[Any]", timeout: float) -> CallTimeoutError:
        blocked_at = () if call.finished else self._give_up(home, call)
        abandoned = call.begun and not call.finished
        error = CallTimeoutError(call.name, timeout, call.waiting_at, blocked_at, abandoned)
        error.__cause__ = call.take_error()
        return error

    def _interrupt(self, home: Home, call: "Call[Any]", done: Any, interrupt: BaseException) -> None:
        """Cancel a call whose waiter was interrupted, and wait for its clean-up, at most the grace."""
        if call.finished or isinstance(interrupt, (RuntimeClosedError, RuntimeDiedError)):
            return
        home.cancel(call)
        try:
            wait_for(done, self.grace)
        finally:  # a second interrupt ends the waiting
            if not call.finished:
                self._give_up(home, call)
        error = call.take_error()
        if error is not None and not isinstance(error, asyncio.CancelledError):
            interrupt.add_note(f"while {call.name} cleaned up after this, it raised {error!r}")

    async def _settle(self, answered: "asyncio.Future[None]") -> bool:
        """Wait for a cancelled call's clean-up, at most the grace; tell whether the waiter was cancelled, too."""
        cancelled = False
        deadline = time.monotonic() + self.grace
        while not answered.done() and (left := deadline - time.monotonic()) > 0:
            try:
                await asyncio.wait((answered,), timeout=left)
            except asyncio.CancelledError:
                cancelled = True  # the clean-up still goes first
        return cancelled

    def _give_up(self, home: Home, call: "Call[Any]") -> tuple[str, ...]:
        """Leave a call that did not end in its grace to its loop; tell what blocks that loop, if anything."""
        blocked_at = () if call.cancelled_at_loop else thread_stack(home.thread.ident)
        if call.begun:  # else it never will
            home.abandon(call)
            emit(CallAbandoned(self.name, call.name, call.waiting_at, blocked_at))
        return blocked_at


_CLOSE_MARGIN = 2.0
"""Seconds between a home's own deadline and our giving up on its thread. A guess."""


def _not_callable(fn: object) -> TypeError:
    if isinstance(fn, CoroutineType):
        fn.close()  # refused: without this its RuntimeWarning would point here instead of at the caller
        return TypeError(f"pass the function and its arguments, not a coroutine: run({fn.__qualname__}, ...)")
    return TypeError(f"an async function is needed, got {fn!r}")


def _outcome(call: "Call[T]") -> T:
    if call.error is None:
        return call.value
    error = call.take_error()
    assert error is not None
    try:
        raise error
    finally:
        del error  # or the traceback's frame and the error would keep each other alive


_open: weakref.WeakSet[LoopRuntime] = weakref.WeakSet()
_at_exit = False
_exited = False


def _close_at_exit(runtime: LoopRuntime) -> None:
    """Drain the runtime when the interpreter exits."""
    global _at_exit
    _open.add(runtime)
    if not _at_exit:
        _at_exit = True
        atexit.register(_close_all)


def _close_all() -> None:
    global _exited
    _exited = True
    runtimes = _snapshot(_open)
    for runtime in runtimes:  # all at once: together they take no longer than the slowest
        runtime._stop(_EXIT_BUDGET)  # pyright: ignore[reportPrivateUsage] - same module
    for runtime in runtimes:
        runtime._join(_EXIT_BUDGET)  # pyright: ignore[reportPrivateUsage]


def _snapshot(runtimes: "weakref.WeakSet[LoopRuntime]") -> tuple[LoopRuntime, ...]:
    while True:
        try:
            return tuple(runtimes)
        except RuntimeError:  # another thread has just opened one
            continue


_EXIT_BUDGET = 5.0  # seconds


class _Default:
    """The process's default runtime."""

    def __init__(self) -> None:
        self.runtime: LoopRuntime | None = None
        self._making = allocate_lock()

    def make(self) -> LoopRuntime:
        with self._making:
            forget_in_child(self)
            if self.runtime is None or (self.runtime.is_closed and not _exited):
                self.runtime = LoopRuntime()
            return self.runtime

    def forget_parent(self) -> None:
        self._making = allocate_lock()


_default = _Default()


def default_runtime() -> LoopRuntime:
    """
    Return the process's default runtime, which `homeloop.run` and its kin use. Starts nothing.

    A default runtime that was closed is replaced by a new one, except while the interpreter exits.
    """
    runtime = _default.runtime
    if runtime is None or runtime.is_closed:
        return _default.make()
    return runtime
