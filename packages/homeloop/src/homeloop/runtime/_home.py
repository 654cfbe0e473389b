"""A home: one event loop on one thread, from its start to its end."""

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, cast

from homeloop._affinity import Affinity
from homeloop._events import CleanUpFailed, RuntimeDied, RuntimeStarted, RuntimeStopped, TaskLeft, emit, logger
from homeloop.errors import OverloadedError, RuntimeClosedError, RuntimeDiedError
from homeloop.runtime._abandoned import Abandoned
from homeloop.runtime._arguments import check_loop
from homeloop.runtime._bell import doorbell
from homeloop.runtime._call import Call
from homeloop.runtime._endings import leave_loop_behind, leave_to_runtime, loop_ending
from homeloop.runtime._fork import AWAITED, STAYED, end_child, end_on_return
from homeloop.runtime._greenlets import fit_for_thread, leave_thread
from homeloop.runtime._originals import allocate_lock, get_ident, real_threading
from homeloop.runtime._places import Place
from homeloop.runtime._probe import await_chain, error_text, loop_affinity, loop_threads, running_greenlet
from homeloop.runtime._waiting import new_waiter
from homeloop.runtime._workers import Workers

_LAST_CHANCE = 0.5
"""Seconds that resources get to close even when tasks have used up the whole budget. A guess."""

_LATE_ROUNDS = 10
"""Times that tasks are still looked for when the time is over: clean-up may start tasks, not for ever. A guess."""
_SLICE = 0.5
"""Seconds between looks for signals while a loop is started."""

ENDED = "its loop has ended"

T = TypeVar("T")

AnyCall = Call[Any]  # Any: a home does not look into what calls return


@dataclass(frozen=True, slots=True)
class Admission:
    """How many calls may be in flight on a home, and what becomes of the next one."""

    max_in_flight: int | None
    when_full: Literal["wait", "refuse"]


class Home:
    """
    A loop that runs on a thread of its own until told to stop.

    Not restartable: a runtime whose home has ended opens the next one. The thread is a daemon, so
    that a forgotten runtime never keeps the interpreter from exiting; `LoopRuntime` drains it at exit.
    """

    def __init__(
        self,
        runtime: str,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        restarts: int,
        admission: Admission,
        abandoned: Abandoned,
    ) -> None:
        self.affinity = Affinity(os.getpid(), 0, "no loop yet", runtime)
        self.loop: asyncio.AbstractEventLoop
        self.thread = real_threading().Thread(target=self._main, name=runtime, daemon=True)
        self.workers = Workers(f"{runtime}-executor")
        self.ended = False
        self.died = False
        self.in_flight: set[AnyCall] = set()
        self.abandoned = abandoned
        self.done_count = 0
        self.name = self._runtime = runtime
        self.inherited = False
        self._loop_factory = loop_factory
        self._restarts = restarts
        self._admission = admission
        self._counted = 0
        self._waiting: deque[AnyCall] = deque()
        self._admitting = False
        self._inbox: deque[AnyCall] = deque()
        self._ring: Callable[[], object]  # has `_pump` called on the loop
        self._ringing: list[int] | None = None  # who rings, 0 once it has; None when the loop has looked
        self._stopping = False
        self._dropped = False
        self._deadline = 0.0  # monotonic
        self._start_error: BaseException | None = None
        self._start_told = False
        self._started = allocate_lock()
        self._started.acquire()
        self._over = False
        self._ends_child = False
        self._awaiting_end: deque[Callable[[], object]] = deque()

    # -- from any thread ------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the thread."""
        self.thread.start()

    def wait_started(self, timeout: float | None) -> bool:
        """
        Wait until the loop runs, at most ``timeout`` seconds; tell whether it does.

        Raises:
            RuntimeDiedError: The loop ended as soon as it was started.
            BaseException: What the loop factory raised.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        # In slices: a signal that came in the moment before the thread fell asleep does not wake it.
        while not self._started.acquire(True, min(_SLICE, max(0.0, deadline - time.monotonic()))):
            if self.inherited:
                raise RuntimeDiedError(self._runtime, STAYED)
            if time.monotonic() >= deadline:
                return False
        self._started.release()
        if self._start_error is not None:
            self.thread.join()
            raise self._start_error
        return True

    def post(self, call: AnyCall) -> None:
        """
        Queue a call for the loop. A burst of posts costs one wake-up.

        Raises:
            RuntimeClosedError, RuntimeDiedError: The home has ended; the call will not run.
        """
        self._inbox.append(call)
        ringing = self._ringing
        # Not relied on: a wake-up that the calling thread itself is about to make. This is a signal handler
        # then, or a finalizer, which has interrupted it, and waits before it goes on.
        if ringing is None or ringing[0] == get_ident():
            try:
                ringing = self._ringing = [get_ident()]
                self._ring()
                ringing[0] = 0
            except BaseException as error:
                self._ringing = None  # before anything that may fail: nobody may rely on our wake-up
                # If the loop is closed, `ended` is set. Else a signal handler raised in between, or the stack is
                # full: the call is not posted, and whoever did rely on it gets a wake-up.
                if not isinstance(error, RuntimeError) or not self.loop.is_closed():
                    if _take(self._inbox, call):
                        call.finished = True
                    self._ring()
                    raise
        # Checked after the append: whoever ends the home first sets `ended`, then answers the
        # inbox. Either it sees this call there, or we see the flag and take the call out again.
        if self.ended:
            try:
                self._inbox.remove(call)
            except ValueError:
                return  # the ending home has answered it
            raise self._refusal()

    def cancel(self, call: AnyCall) -> None:
        """Have a call cancelled on the loop's thread; one that has not started never starts."""
        call.unwanted = True
        self._tell(self._cancel, call)

    def cancel_unwaited(self, call: AnyCall, grace: float, give_up: Callable[[], object]) -> None:
        """Have a call cancelled, and ``give_up()`` called on the loop if it is there ``grace`` seconds later."""
        self.cancel(call)
        self._tell(self._watch, call, grace, give_up)

    def abandon(self, call: AnyCall) -> None:
        """Let nobody wait for a call any more; the loop awaits it when it stops."""
        self.abandoned.add(call)
        if call.finished and self.abandoned.remove(call):  # meanwhile
            self._report_failed_clean_up(call)

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is this home's own, and not one that has its number after it has ended."""
        # Not `is_alive`: it says yes of a thread that has ended while another thread is asking the same.
        return bool(self.thread.ident == get_ident() and not self._over)

    @property
    def has_started(self) -> bool:
        """Whether its loop has run, whatever has become of it since."""
        return self._start_told and self._start_error is None

    @property
    def max_in_flight(self) -> int | None:
        """How many calls may be in flight."""
        return self._admission.max_in_flight

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiting)

    def look_after(self, call: AnyCall) -> bool:
        """
        See to a call whose caller has waited long; tell whether it has been answered.

        An exception that somebody injects into the loop's thread may strike between any two steps, and lose a
        wake-up, or the call itself.
        """
        if call.finished:
            return True
        if self.inherited:
            raise RuntimeDiedError(self._runtime, STAYED)
        if self._over:
            call.leave(RuntimeDiedError(self._runtime, ENDED))
        else:
            self._tell(self._look_after, call)
        return call.finished

    def stop(self, budget: float) -> None:
        """Have the loop cancel what it runs, close what lives on it, and end within ``budget`` seconds."""
        self._deadline = time.monotonic() + budget
        self._stopping = True
        loop: asyncio.AbstractEventLoop | None = getattr(self, "loop", None)
        if loop is not None:  # else it will look at `_stopping` as soon as it runs
            self._tell(loop.stop)

    def drop(self) -> None:
        """Stop without waiting for any clean-up: nothing refers to the runtime any more. Thread: any."""
        self._dropped = True
        self.stop(0.0)

    def _tell(self, what: Callable[..., object], *args: object) -> None:
        """Have the loop call something, unless it is closed: then it has answered every call."""
        try:
            self.loop.call_soon_threadsafe(what, *args)
        except RuntimeError:
            if not self.loop.is_closed():  # no, the caller's stack is full: a RecursionError is one
                raise

    def wait_end(self, timeout: float) -> bool:
        """Wait until the thread has ended, at most ``timeout`` seconds; tell whether it has."""
        waiter = new_waiter()
        self._awaiting_end.append(waiter.wake)
        # Looked at after the append: the end sets the flag first and empties the list then.
        if self._over and _take(self._awaiting_end, waiter.wake):
            waiter.wake()
        if not waiter.wait(timeout):
            return False
        self.thread.join()  # it is past its last statement
        return True

    def leave_behind(self) -> None:
        """Answer every call although the thread has not ended: it is blocked and nobody waits for it any more."""
        self.ended = True  # whoever posts from now on takes the call out again: see post()
        for calls in (self.in_flight, self._waiting, self._inbox):
            for call in snapshot(calls):
                left = RuntimeDiedError(self._runtime, "its loop was blocked and has been left behind")
                call.leave(left if call.begun else self._refusal())
        if (loop := getattr(self, "loop", None)) is not None:
            leave_loop_behind(loop)

    def end_with_child(self) -> None:
        """
        End this process, a child forked on the loop's thread, as soon as its copy of the loop has control again.

        What the loop would go on with is the parent's work, and its selector is the parent's, too.
        """
        self._ends_child = True
        if not hasattr(self, "loop"):  # forked by the loop factory: it has no copy
            return
        for call in self.in_flight:
            if "reply" in vars(call):
                call.reply = partial(_end_child_of, call)
        end_on_return(self.loop, Home.run_forever.__code__)

    # -- on the loop's thread ---------------------------------------------------------------------

    def begin(self, call: AnyCall) -> None:
        """Begin a call in the midst of another one, unless it is refused or has to wait for its turn."""
        self._begin(call)

    def _main(self) -> None:
        try:
            self._live()
        finally:
            try:
                leave_thread()
            finally:
                self._over = True
                for wake in tuple(self._awaiting_end):
                    if _take(self._awaiting_end, wake):
                        wake()

    def _live(self) -> None:
        try:
            made = self._loop_factory()
            if self._ends_child:
                end_child(RuntimeError(AWAITED))
            check_loop(made)
            self.loop = fit_for_thread(made)
            leave_to_runtime(self.loop)
            self.affinity = loop_affinity(self.loop)
            asyncio.set_event_loop(self.loop)
            self.loop.set_default_executor(self.workers)
            self._ring = doorbell(self.loop, self._pump)
            self.loop.call_soon(self._tell_start)
        except BaseException as error:
            self.ended = True
            self._tell_start(error)
            return
        reason: BaseException | None = None
        loop_threads[get_ident()] = running_greenlet()
        emit(RuntimeStarted(self._runtime, self.affinity, self._restarts))
        try:
            self._run_until_stopped()
        except BaseException as error:  # the selector failed: nothing more can run here
            reason = error
        finally:
            self._end(reason)

    def _tell_start(self, error: BaseException | None = None) -> None:
        """Let those go on who wait for the start, which has come to this; the first telling counts."""
        if not self._start_told:
            self._start_told = True
            self._start_error = error
            self._started.release()

    def _run_until_stopped(self) -> None:
        while not self._stopping:
            self._run_loop()
            if not self._start_told:
                raise RuntimeError(f"{self.loop!r} returned without having run anything")
            if not self._stopping:
                logger.warning("somebody stopped the loop of runtime %r; it goes on", self._runtime)
        drain = self.loop.create_task(self._drain())
        drain.add_done_callback(lambda _: self.loop.stop())
        while not drain.done():  # a clean-up may stop the loop, too
            self._run_loop()
        drain.result()

    def _run_loop(self) -> None:
        while True:
            try:
                self.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # Raised by a task that nobody awaits; the loop is whole and others depend on it.
                logger.exception("a background task of runtime %r tried to end the process", self._runtime)
                if self._stopping:  # the same turn of the loop may have been told to stop, and has forgotten it
                    return
            else:
                return

    def run_forever(self) -> None:
        """Run the loop until it is stopped. Does not return in a child that was forked there."""
        try:
            self.loop.run_forever()
        except (KeyboardInterrupt, SystemExit) as error:
            if self._ends_child:
                end_child(error)
            raise
        finally:
            if self._ends_child:
                end_child(RuntimeError(AWAITED))

    def _pump(self) -> None:
        self._ringing = None  # before looking: whoever appends from now on wakes us again
        try:
            for _ in range(len(self._inbox)):
                self._begin(self._inbox.popleft())
        except BaseException:  # of a done callback, or injected into this thread: the others still have their turn
            self._ring()
            raise

    def _look_after(self, call: AnyCall) -> None:
        self._pump()
        if call.finished or call in self._waiting:
            return
        if not call.begun:
            self._begin(call)
        elif call.task is None or call.task.done():
            if call in self.in_flight:  # else `_done` has begun, and it gives the place back
                self.in_flight.discard(call)
                self._give_place(call)
            call.leave(RuntimeDiedError(self._runtime, "its thread was struck by an exception from outside"))
            call.finished = True  # if its answer was lost on the way

    def _begin(self, call: AnyCall) -> None:
        if call.begun or call.finished:
            return
        if call.unwanted:
            call.refuse(asyncio.CancelledError())
        elif self._stopping:
            call.refuse(self._refusal())
        elif call.counted and self._counted == self._admission.max_in_flight:
            if self._admission.when_full == "refuse":
                call.refuse(OverloadedError(self._runtime, self._counted))
            else:
                call.queued = True
                self._waiting.append(call)
        else:
            self._launch(call)

    def _launch(self, call: AnyCall) -> None:
        if call.counted:
            self._counted += 1
            if self._admission.max_in_flight is not None:
                call.place = Place(self)
                call.place.take_for(call)
        self.in_flight.add(call)
        call.begun = True
        coroutine = call.drive(self._done)
        try:
            task = self.loop.create_task(coroutine, context=call.context)
        except BaseException as error:  # a task factory of the user's
            coroutine.close()
            call.error = error
            self._done(call)
            return
        if not call.finished:  # an eager task factory may have run it to its end
            call.task = task
            if not call.driven:
                call.undriven = lambda _: self._ended_undriven(call)
                task.add_done_callback(call.undriven)

    def _ended_undriven(self, call: AnyCall) -> None:
        """End a call whose task was cancelled before its first step: nothing has driven it, and nothing will."""
        if not call.finished:
            self.in_flight.discard(call)
            try:
                call.refuse(asyncio.CancelledError())
            finally:
                self._give_place(call)

    def _done(self, call: AnyCall) -> None:
        if self._stopping and not call.unwanted and isinstance(call.error, asyncio.CancelledError):
            cancelled = call.error
            how = "dropped: nothing referred to it any more" if self._dropped else "closed"
            call.error = RuntimeDiedError(self._runtime, f"it was {how}, which cancelled the call")
            call.error.__cause__ = cancelled
        self.done_count += 1
        self.in_flight.discard(call)
        try:
            call.finish()
        except BaseException as error:  # of a done callback, or injected into this thread
            self.loop.call_soon(call.finish)
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and (task := asyncio.current_task()) is not None:
                task.add_done_callback(_retrieve)  # `_run_loop` tells of it; asyncio need not, once more
            raise
        finally:
            self._give_place(call)
            if self.abandoned.remove(call):
                self._report_failed_clean_up(call)

    def _give_place(self, call: AnyCall) -> None:
        if call.counted:
            self._counted -= 1
            if call.place is not None:
                call.place.give_back()
            if self._waiting and not self._admitting:
                self._admit()

    def _admit(self) -> None:
        # Not entered again by calls that end as soon as they begin, as they may under an eager task
        # factory: each would begin the next one, until the stack is full.
        self._admitting = True
        try:
            while self._waiting and self._counted != self._admission.max_in_flight:
                self._begin(self._waiting.popleft())
        except BaseException:
            self.loop.call_soon(self._admit)  # the others still have their turn
            raise
        finally:
            self._admitting = False

    def _cancel(self, call: AnyCall) -> None:
        self._pump()  # it may be there still, if its caller was interrupted while posting it
        if call in self._waiting:
            self._waiting.remove(call)
            call.refuse(asyncio.CancelledError())
        elif call.begun:
            call.cancel()
        elif not call.finished:  # its caller was interrupted before it was posted, and waits
            call.refuse(asyncio.CancelledError())

    def _watch(self, call: AnyCall, grace: float, give_up: Callable[[], object]) -> None:
        if call.task is not None:
            timer = self.loop.call_later(grace, give_up)
            call.task.add_done_callback(lambda _: timer.cancel())

    def _report_failed_clean_up(self, call: AnyCall) -> None:
        """Let go of an abandoned call's error; nobody waits for it, so tell of it."""
        if isinstance(error := call.take_error(), Exception):
            emit(CleanUpFailed(self._runtime, call.name, error_text(error)))

    async def _drain(self) -> None:
        """Cancel tasks, then close generators (and with them this loop's resources), by the deadline."""
        for call in tuple(self.in_flight):
            if call not in self.abandoned:
                call.cancel()
        left: set[asyncio.Task[Any]] = set()
        late = 0
        while tasks := asyncio.all_tasks() - {asyncio.current_task()} - left:  # clean-up may start tasks, too
            # But those of a loop that was left behind: they were answered without a cancellation.
            of_calls = {call.task for call in self.in_flight if call.cancelled_at_loop or not call.finished}
            for task in tasks - of_calls:
                task.cancel()
            ended, pending = await asyncio.wait(tasks, timeout=max(0.0, self._deadline - time.monotonic()))
            left |= pending
            for task in ended - of_calls:
                self._report_error(task)
            late += time.monotonic() >= self._deadline
            if late > _LATE_ROUNDS:  # each clean-up starting the next one would be without end
                break
        names = {call.task: call.name for call in self.in_flight}
        for task in (task for task in left if not task.done()):
            emit(TaskLeft(self._runtime, names.get(task) or repr(task.get_name()), await_chain(task)))
            cast("Any", task)._log_destroy_pending = False  # else asyncio tells of it again, without saying whose
        # From now on every loop of ours knows its end, so nothing is opened on it that would not be closed.
        loop_ending(self.loop)
        try:
            async with asyncio.timeout(max(_LAST_CHANCE, self._deadline - time.monotonic())):
                await self.loop.shutdown_asyncgens()
        except TimeoutError:
            logger.warning("asynchronous generators of runtime %r did not close in time", self._runtime)

    def _report_error(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler(
                {"message": "a task failed while its runtime was closed", "exception": error, "task": task}
            )

    def _end(self, reason: BaseException | None) -> None:
        self.died = reason is not None
        self.ended = True  # before the inbox is answered: see post()
        loop_threads.pop(get_ident(), None)
        self.workers.shutdown(wait=False, cancel_futures=True)
        # Answered before the workers are waited for, as they may be waiting for an answer; waited for with a
        # bound, as they may block elsewhere; the loop closed last, as finishing workers report to it.
        self._answer_all()
        self.workers.join(max(0.0, self._deadline - time.monotonic()))
        asyncio.set_event_loop(None)
        self._ring = _nothing  # who still refers to an ended home must not keep its descriptor
        try:
            self.loop.close()
        except Exception as error:
            logger.exception("the loop of runtime %r could not be closed", self._runtime)
            reason = reason or error
        if not self._start_told:
            failed = RuntimeDiedError(self._runtime, f"its loop ended as soon as it was started ({reason!r})")
            failed.__cause__ = reason
            self._tell_start(failed)
        if reason is not None:
            emit(RuntimeDied(self._runtime, self.affinity, repr(reason)))
        else:
            emit(RuntimeStopped(self._runtime, self.affinity))

    def _answer_all(self) -> None:
        for calls in (self.in_flight, self._waiting, self._inbox):
            while calls:
                try:
                    call = calls.pop()
                except IndexError:  # post() has just taken out the last one
                    break
                if call.place is not None:
                    call.place.give_back()
                self.abandoned.remove(call)
                try:
                    call.refuse(RuntimeDiedError(self._runtime, ENDED) if call.begun else self._refusal())
                except BaseException:
                    logger.exception("a done callback of %s failed", call.name)

    def _refusal(self) -> RuntimeClosedError | RuntimeDiedError:
        if self.died:
            return RuntimeDiedError(self._runtime, ENDED)
        return RuntimeClosedError(self._runtime, self._dropped)


def _end_child_of(call: AnyCall) -> None:
    end_child(call.take_error())


def _take(things: "deque[T]", thing: T) -> bool:
    """Take something out, unless another thread has done so."""
    try:
        things.remove(thing)
    except ValueError:
        return False
    return True


def snapshot(things: "Iterable[T]") -> tuple[T, ...]:
    """Return what a collection holds that other threads may be changing."""
    while True:
        try:
            return tuple(things)
        except RuntimeError:  # it has just changed
            continue


def _retrieve(task: "asyncio.Task[Any]") -> None:
    task.exception()


def _nothing() -> None:
    pass
