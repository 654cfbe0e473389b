"""
The runtime: the handle through which any code reaches a loop that is not its own.

Over 400 lines, most of them the docstrings of its public face, which belong in one place.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, Literal, ParamSpec, TypeVar, TypeVarTuple, Unpack, cast

from homeloop._events import CallAbandoned, CleanUpFailed, emit
from homeloop.errors import CallTimeoutError, RuntimeClosedError, RuntimeDiedError, WrongThreadError
from homeloop.runtime._arguments import (
    check_manager,
    check_options,
    check_timeout,
    not_callable,
    running_loop,
)
from homeloop.runtime._blocked import BlockedLoop, block_for, blocked_loops, wait_among
from homeloop.runtime._call import Call
from homeloop.runtime._conversation import Entered, Line, iterate
from homeloop.runtime._fork import STAYED
from homeloop.runtime._future import CallFuture, submission_listeners
from homeloop.runtime._greenlets import GreenWaiter
from homeloop.runtime._home import ENDED, Admission, Home
from homeloop.runtime._life import Life
from homeloop.runtime._originals import get_ident
from homeloop.runtime._places import Place, holds_place
from homeloop.runtime._probe import callable_name, error_text, loop_threads, thread_stack
from homeloop.runtime._waiting import Waiter, answer, completed_in_hub, new_waiter, outlast
from homeloop.runtime._waits import awaited_by, begin_wait, end_wait
from homeloop.runtime._workers import current_job

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BLOCKED = 0.5
"""A loop that has not even taken a cancellation after this many seconds counts as blocked."""


class LoopRuntime(Life):
    """
    Own an event loop on a thread of its own, and run async functions there for anybody.

    The loop starts with the first call and serves until `close`. A forked child gets a fresh loop
    on its first call; a loop that ended by itself is replaced on the next one. A runtime that nothing
    refers to any more takes its loop along, and what was submitted to it: keep it in a variable.

    Args:
        name: For the thread, logs and errors.
        loop_factory: Makes the loop, on its thread; `asyncio.new_event_loop` by default, which asks
            the policy. Pass ``uvloop.new_event_loop`` for uvloop.
        grace: Seconds a cancelled call may take to clean up before it is abandoned.
        max_in_flight: Calls that may run at the same time, abandoned ones included; None for any
            number. A conversation (`iterate`, `enter`) is one call. Who holds a place needs no second one to
            wait for calls (`run`, `arun`) and to begin conversations, as those who hold the places could wait
            for each other: a call and what inherits its context, the body of a conversation, and whatever
            else runs on the loop or in its executor. What is submitted always takes one.
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
        check_options(name, loop_factory, grace, max_in_flight, when_full, propagate_context)
        super().__init__(name, loop_factory, Admission(max_in_flight, when_full))
        self.grace = grace
        self._is_bounded = max_in_flight is not None
        self._propagate_context = propagate_context

    # -- calls ------------------------------------------------------------------------------------

    def run(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
        """
        Run ``fn(*args)`` on this runtime's loop and block until it finishes.

        Arguments, result and exceptions are the very same objects on both sides. The caller's
        context variables are visible to ``fn``, and those it changed are changed for the caller
        afterwards, also when it failed.

        Args:
            fn: Async function. For keyword arguments use `functools.partial`.
            timeout: Seconds ``fn`` may take; None for ever. It then gets `grace` seconds more to clean
                up. With 0 or less, what is left of a deadline that is over, it is not even called, as
                with `asyncio.wait_for`.

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
            injected exception) cancels ``fn`` and is raised once its clean-up has run. What cannot
            wake the thread is noticed within half a second.
        Source: docs.python.org/3/library/asyncio-task.html#asyncio.run_coroutine_threadsafe
        """
        if not callable(fn):
            raise not_callable(fn, "run")
        if timeout is not None:
            check_timeout(timeout)
            if timeout <= 0:
                raise CallTimeoutError(callable_name(fn), timeout, never_began=_NO_TIME)
        home, left = self._home, timeout
        if home is None or home.ended or self._closed:
            home, left = self._home_within(timeout, fn)
        return self._run(home, Call(fn, args, copy_context()), timeout, left)

    def _run(
        self,
        home: Home,
        call: "Call[T]",
        timeout: float | None = None,
        left: float | None = None,
        what: str = "run()",
    ) -> T:
        ident = get_ident()
        if home.thread.ident == ident and home.is_here:
            raise WrongThreadError(what, home.thread.name)
        waiter = new_waiter()
        call.reply = waiter.wake
        waits = ident in loop_threads
        waited = awaited_by(ident) if waits else None  # if this interrupts another wait
        loop = asyncio._get_running_loop()
        blocked: BlockedLoop | None = None
        job = current_job()
        before = job.waits if job is not None else 0
        around = blocked_loops.get() or (job.blocked if job is not None else ())
        posting = False
        late: CallTimeoutError | None = None
        try:
            if waits:
                begin_wait(ident, home.thread.ident)
            if around:
                asking = job.asking if job is not None else None if loop is None else asyncio.current_task()
                wait_among(around, asking, home.loop, call)
            if loop is not None and not isinstance(waiter, GreenWaiter):  # a greenlet does not block its thread
                blocked = block_for(call, loop)
            if self._is_bounded:
                call.counted = call.counted and self._needs_place(home)
            if job is not None:
                job.begin_wait(lambda: home.cancel(call))
            posting = True
            home.post(call)
            if not waiter.wait(_LOOK if left is None or left > _LOOK else left, home):
                late = self._wait_on(home, call, waiter, timeout, left)
        except BaseException as interrupt:
            if posting:
                self._interrupt(home, call, waiter, interrupt)
            raise
        finally:
            if blocked is not None:
                blocked.go_on()
            if job is not None:
                job.end_wait(before)
            if waits:
                end_wait(ident, waited)
            if call.finished and self._propagate_context:
                call.bring_context_back()
        if late is not None:
            try:
                raise late
            finally:
                late = None  # the traceback's frame and the error would keep each other alive
        return outcome(call)

    async def arun(self, fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
        """
        Run ``fn(*args)`` on this runtime's loop from a coroutine on any loop, this one included.

        Args, returns and raises as `run`, except that no thread is refused. A cancelled caller
        cancels ``fn`` and goes on once its clean-up has run, or after `grace`.

        Thread: any with a running loop, which goes on running.
        """
        if not callable(fn):
            raise not_callable(fn, "arun")
        if timeout is not None:
            check_timeout(timeout)
            if timeout <= 0:
                raise CallTimeoutError(callable_name(fn), timeout, never_began=_NO_TIME)
        loop = running_loop("arun")
        home, left = self._home, timeout
        if home is None or home.ended or self._closed:
            home, left = self._home_within(timeout, fn)
        call = Call(fn, args, copy_context(), counted=loop is not home.loop)
        if self._is_bounded:
            call.counted = call.counted and self._needs_place(home)
        if around := blocked_loops.get():
            wait_among(around, asyncio.current_task(), home.loop, call)
        answered: asyncio.Future[None] = loop.create_future()
        call.reply = lambda: answer(loop, answered)
        home.post(call)
        try:
            await asyncio.wait((answered,), timeout=left)
            if not answered.done():
                home.cancel(call)
                if await outlast(answered, self.grace) is not None:
                    raise asyncio.CancelledError
                if not call.finished or isinstance(call.error, asyncio.CancelledError):
                    raise self._timed_out(home, call, cast("float", timeout))
        except asyncio.CancelledError:
            if not call.unwanted:  # else its grace is over
                home.cancel(call)
                await outlast(answered, self.grace)
            if not call.finished:
                self._give_up(home, call)
            elif isinstance(error := call.take_error(), Exception):
                emit(CleanUpFailed(self.name, call.name, error_text(error)))
            raise
        finally:
            if call.finished and self._propagate_context:
                call.bring_context_back()
        return outcome(call)

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
            raise not_callable(fn, "submit")
        return self._submit(self._running_home(), Call(fn, args, copy_context()))

    def _submit(self, home: Home, call: "Call[T]") -> "Future[T]":
        grace, cancel = self.grace, self._cancel_unwaited  # the future must not keep the runtime
        future: CallFuture[T] = CallFuture(self.name, lambda: cancel(home, grace, call))
        call.reply = completed_in_hub(lambda: future.resolve(call))
        try:
            home.post(call)
        except (RuntimeClosedError, RuntimeDiedError):
            raise
        except BaseException:  # interrupted: nobody gets the future
            home.cancel(call)
            raise
        for listen in submission_listeners:
            listen(future, call.fn)
        return future

    def iterate(self, fn: Callable[[Unpack[Ts]], AsyncIterator[T]], *args: *Ts) -> Generator[T, None, None]:
        """
        Iterate an async generator from sync code: ``for item in runtime.iterate(rows, query)``.

        All of the generator runs in one task and in one context, a copy of the caller's at the
        first item, so time-outs and cancel scopes may span its yields.

        Args:
            fn: Async generator function, or any function that returns an async iterator.

        Returns:
            A generator. Closing it, or leaving the loop early and dropping it, runs the async
            generator's ``finally`` blocks before it returns.

        Raises:
            TypeError: ``fn`` cannot be called.
            BaseException: From ``next()``: what the generator raises (it is exhausted then), and
                what `run` raises; refused, the generator was not begun.

        Thread: any except the loop's own, and not two at a time.
        Cancellation: an exception raised in the thread that waits for an item cancels the
            generator, waits for its clean-up, and ends the iteration.
        """
        if not callable(fn):
            raise not_callable(fn, "iterate")
        return iterate(self, partial(self._line, "iterate()"), partial(fn, *args))

    def enter(self, manager: AbstractAsyncContextManager[T, bool | None]) -> AbstractContextManager[T, bool]:
        """
        Enter an async context manager from sync code: ``with runtime.enter(client) as client``.

        Its ``__aenter__`` and ``__aexit__`` run in one task, which waits on the loop in between, in
        a copy of the caller's context. The manager sees what the body raises and may swallow it.

        Args:
            manager: An async context manager that is not entered yet.

        Returns:
            A context manager, to be entered once. Entering and leaving it raise what the manager raises,
            and what `run` raises; refused, the manager was not entered.

        Raises:
            TypeError: It is no async context manager.
            RuntimeError: From entering it a second time, and from leaving it while it is not entered.

        Thread: any except the loop's own.
        Cancellation: as `run`, while it is entered and while it is left. An exception that strikes before
            the body has begun cancels the manager's task, so that it is left, too.
        """
        check_manager(manager)
        return Entered(partial(self._line, "enter()"), manager)

    def _line(self, what: str) -> Line:
        home = self._running_home()
        if home.is_here:
            raise WrongThreadError(what, home.thread.name)
        return Line(
            self.name,
            self.grace,
            run=partial(self._run, home, what=what),
            post=home.post,
            begin=home.begin,
            cancel=partial(self._cancel_unwaited, home, self.grace),
            check=partial(self._check, home),
            needs_place=self._is_bounded and self._needs_place(home),
            body=partial(Place, home) if self._is_bounded else nullcontext,
        )

    def _needs_place(self, home: Home) -> bool:
        """Tell whether a call that the calling code waits for needs a place of its own; see `Place`."""
        job = current_job()
        return (job is None or job.workers is not home.workers) and not holds_place(home)

    def _check(self, home: Home) -> None:
        if self._closed:
            raise RuntimeClosedError(self.name)
        if home is not self._home:
            raise RuntimeDiedError(self.name, ENDED if home.ended else STAYED)

    def sync(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        """
        Make an async function one that sync code may call; decorator.

        Thread, cancellation and raises as `run`, without a timeout.

        Raises:
            TypeError: ``fn`` cannot be called.
        """
        if not callable(fn):
            raise not_callable(fn, "sync")

        @wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(partial(fn, *args, **kwargs))

        return call

    # -- inside -----------------------------------------------------------------------------------

    def _wait_on(
        self, home: Home, call: "Call[Any]", waiter: Waiter, timeout: float | None, left: float | None
    ) -> CallTimeoutError | None:
        """Wait for a call that takes its time, and look now and then whether it was lost; else as `_expire`."""
        deadline = math.inf if left is None else time.monotonic() + max(0.0, left - _LOOK)
        while (left := deadline - time.monotonic()) > 0:
            if home.look_after(call) or waiter.wait(min(_LOOK, left), home):
                return None
        return self._expire(home, call, waiter, timeout)

    def _expire(
        self, home: Home, call: "Call[Any]", waiter: Waiter, timeout: float | None
    ) -> CallTimeoutError | None:
        """Cancel a call whose time is over and wait for its clean-up; return the error unless it finished well."""
        home.cancel(call)
        if not waiter.wait(min(_BLOCKED, self.grace)) and call.cancelled_at_loop:
            waiter.wait(max(0.0, self.grace - _BLOCKED))
        if call.finished and not isinstance(call.error, asyncio.CancelledError):
            return None  # it finished or failed by itself: that outcome is the truth
        return self._timed_out(home, call, cast("float", timeout))

    def _timed_out(self, home: Home, call: "Call[Any]", timeout: float) -> CallTimeoutError:
        blocked_at = () if call.finished else self._give_up(home, call)
        abandoned = call.begun and not call.finished
        never_began = "" if call.driven or abandoned else self._why_not_begun(home, call)
        error = CallTimeoutError(call.name, timeout, call.waiting_at, blocked_at, abandoned, never_began)
        error.__cause__ = call.take_error()
        return error

    def _why_not_begun(self, home: Home, call: "Call[Any]") -> str:
        if call.queued:
            return f"it waited for one of the {home.max_in_flight} places that calls in flight may have"
        return "it was not taken in time by the loop"

    def _interrupt(self, home: Home, call: "Call[Any]", waiter: Waiter, interrupt: BaseException) -> None:
        """Cancel a call whose waiter was interrupted, and wait for its clean-up, at most the grace."""
        if home.inherited or isinstance(interrupt, (RuntimeClosedError, RuntimeDiedError)):
            return
        if call.finished:
            call.take_error()  # the interrupt came first for the caller
            return
        home.cancel(call)
        try:
            waiter.wait(self.grace)
        finally:  # a second interrupt ends the waiting
            if not call.finished:
                self._give_up(home, call)
        error = call.take_error()
        if error is not None and not isinstance(error, asyncio.CancelledError):
            text = error_text(error)
            try:
                interrupt.add_note(f"while {call.name} cleaned up after this, it raised {text}")
            except Exception:  # it is frozen, or of a mind of its own
                emit(CleanUpFailed(self.name, call.name, text))

    @classmethod
    def _cancel_unwaited(cls, home: Home, grace: float, call: "Call[Any]") -> None:
        """Cancel a call that nobody waits for; give it up if it has not ended a grace later."""
        home.cancel_unwaited(call, grace, lambda: call.finished or cls._give_up(home, call))

    @staticmethod
    def _give_up(home: Home, call: "Call[Any]") -> tuple[str, ...]:
        """Leave a call that did not end in its grace to its loop; tell what blocks that loop, if anything."""
        blocked_at = () if call.cancelled_at_loop else thread_stack(home.thread.ident)
        if call.begun:  # else it never will
            home.abandon(call)
            emit(CallAbandoned(home.name, call.name, call.waiting_at, blocked_at))
        return blocked_at


_LOOK = 2.0
"""Seconds between looks for answers that a loop's thread lost. A guess."""

_NO_TIME = "its timeout left it no time"


def outcome(call: "Call[T]") -> T:
    """Return what a finished call returned, or raise what it raised."""
    if call.error is None:
        return call.value
    error = call.take_error()
    assert error is not None
    try:
        raise error
    finally:
        del error  # or the traceback's frame and the error would keep each other alive
