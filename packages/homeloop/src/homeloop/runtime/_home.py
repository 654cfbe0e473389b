"""A home: one event loop on one thread, from its start to its end."""

import asyncio
import threading
import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from homeloop._affinity import Affinity
from homeloop._events import RuntimeDied, RuntimeStarted, RuntimeStopped, TaskLeft, emit, logger
from homeloop.errors import OverloadedError, RuntimeClosedError, RuntimeDiedError
from homeloop.runtime._call import Call
from homeloop.runtime._endings import loop_ending
from homeloop.runtime._probe import await_chain, loop_affinity
from homeloop.runtime._waits import loop_threads
from homeloop.runtime._workers import Workers

_LAST_CHANCE = 0.5
"""Seconds that resources get to close even when tasks have used up the whole budget. A guess."""

_ENDED = "its loop has ended"

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
    ) -> None:
        self.affinity: Affinity
        self.loop: asyncio.AbstractEventLoop
        self.thread = threading.Thread(target=self._main, name=runtime, daemon=True)
        self.ended = False
        self.died = False
        self.in_flight: set[AnyCall] = set()
        self.abandoned: set[asyncio.Task[None]] = set()
        self.done_count = 0
        self._runtime = runtime
        self._loop_factory = loop_factory
        self._restarts = restarts
        self._admission = admission
        self._counted = 0
        self._waiting: deque[AnyCall] = deque()
        self._inbox: deque[AnyCall] = deque()
        self._woken = False
        self._stopping = False
        self._deadline = 0.0  # monotonic
        self._start_error: BaseException | None = None
        self._started = allocate_lock()

    # -- from any thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and return once its loop runs; raise what the loop factory raised."""
        self._started.acquire()
        self.thread.start()
        with self._started:
            pass
        if self._start_error is not None:
            self.thread.join()
            raise self._start_error

    def post(self, call: AnyCall) -> None:
        """
        Queue a call for the loop. A burst of posts costs one wake-up.

        Raises:
            RuntimeClosedError, RuntimeDiedError: The home has ended; the call will not run.
        """
        self._inbox.append(call)
        if not self._woken:
            try:
                self._woken = True
                self.loop.call_soon_threadsafe(self._pump)
            except RuntimeError:  # the loop is closed, so `ended` is set
                pass
            except BaseException:  # a signal handler raised in between: nobody may rely on our wake-up
                self._woken = False
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
        try:
            self.loop.call_soon_threadsafe(self._cancel, call)
        except RuntimeError:  # the loop is closed: it has answered every call
            pass

    def abandon(self, call: AnyCall) -> None:
        """Let nobody wait for a call any more; the loop awaits it when it stops."""
        try:
            self.loop.call_soon_threadsafe(self._abandon, call)
        except RuntimeError:
            pass

    def stop(self, budget: float) -> None:
        """Have the loop cancel what it runs, close what lives on it, and end within ``budget`` seconds."""
        self._deadline = time.monotonic() + budget
        self._stopping = True
        loop: asyncio.AbstractEventLoop | None = getattr(self, "loop", None)
        try:
            if loop is not None:  # else it will look at `_stopping` as soon as it runs
                loop.call_soon_threadsafe(loop.stop)
        except RuntimeError:  # it has ended by itself
            pass

    # -- on the loop's thread ---------------------------------------------------------------------

    def _main(self) -> None:
        workers = Workers(f"{self._runtime}-executor")
        try:
            self.loop = self._loop_factory()
            self.affinity = loop_affinity(self.loop)
            asyncio.set_event_loop(self.loop)
            self.loop.set_default_executor(workers)
            self.loop.call_soon(self._started.release)
        except BaseException as error:
            self.ended = True
            self._start_error = error
            self._started.release()
            return
        reason: BaseException | None = None
        loop_threads.add(threading.get_ident())
        emit(RuntimeStarted(self._runtime, self.affinity, self._restarts))
        try:
            self._run_until_stopped()
        except BaseException as error:  # the selector failed: nothing more can run here
            reason = error
        finally:
            self._end(workers, reason)

    def _run_until_stopped(self) -> None:
        while not self._stopping:
            self._run_loop()
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
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # Raised by a task that nobody awaits; the loop is whole and others depend on it.
                logger.exception("a background task of runtime %r tried to end the process", self._runtime)
            else:
                return

    def _pump(self) -> None:
        self._woken = False  # before looking: whoever appends from now on wakes us again
        for _ in range(len(self._inbox)):
            self._begin(self._inbox.popleft())

    def _begin(self, call: AnyCall) -> None:
        if call.unwanted:
            call.refuse(asyncio.CancelledError())
        elif self._stopping:
            call.refuse(self._refusal())
        elif call.counted and self._counted == self._admission.max_in_flight:
            if self._admission.when_full == "refuse":
                call.refuse(OverloadedError(self._runtime, self._counted))
            else:
                self._waiting.append(call)
        else:
            self._launch(call)

    def _launch(self, call: AnyCall) -> None:
        self._counted += call.counted
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

    def _done(self, call: AnyCall) -> None:
        self.in_flight.discard(call)
        if self._stopping and not call.unwanted and isinstance(call.error, asyncio.CancelledError):
            cancelled = call.error
            call.error = RuntimeDiedError(self._runtime, "it was closed, which cancelled the call")
            call.error.__cause__ = cancelled
        self.done_count += 1
        call.finish()
        if call.counted:
            self._counted -= 1
            while self._waiting and self._counted != self._admission.max_in_flight:
                self._begin(self._waiting.popleft())

    def _cancel(self, call: AnyCall) -> None:
        self._pump()  # it may be there still, if its caller was interrupted while posting it
        if call in self._waiting:
            self._waiting.remove(call)
            call.refuse(asyncio.CancelledError())
        else:
            call.cancel()

    def _abandon(self, call: AnyCall) -> None:
        if call.task is not None:
            self.abandoned.add(call.task)
            call.task.add_done_callback(self.abandoned.discard)

    async def _drain(self) -> None:
        """Cancel tasks, then close generators (and with them this loop's resources), by the deadline."""
        for call in tuple(self.in_flight):
            if call.task not in self.abandoned:
                call.cancel()
        left: set[asyncio.Task[Any]] = set()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()} - left:  # clean-up may start tasks, too
            of_calls = {call.task for call in self.in_flight}
            for task in tasks - of_calls:
                task.cancel()
            _, left = await asyncio.wait(tasks, timeout=max(0.0, self._deadline - time.monotonic()))
            for task in tasks - left - of_calls:
                self._report_error(task)
        for task in left:
            emit(TaskLeft(self._runtime, repr(task.get_name()), await_chain(task)))
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

    def _end(self, workers: Workers, reason: BaseException | None) -> None:
        self.died = reason is not None
        self.ended = True  # before the inbox is answered: see post()
        loop_threads.discard(threading.get_ident())
        workers.shutdown(wait=False, cancel_futures=True)
        # Answered before the workers are waited for, as they may be waiting for an answer; waited for with a
        # bound, as they may block elsewhere; the loop closed last, as finishing workers report to it.
        self._answer_all()
        workers.join(max(0.0, self._deadline - time.monotonic()))
        asyncio.set_event_loop(None)
        try:
            self.loop.close()
        except Exception as error:
            logger.exception("the loop of runtime %r could not be closed", self._runtime)
            reason = reason or error
        if reason is not None:
            emit(RuntimeDied(self._runtime, self.affinity, repr(reason)))
        else:
            emit(RuntimeStopped(self._runtime, self.affinity))

    def _answer_all(self) -> None:
        for calls in (self.in_flight, self._waiting, self._inbox):
            while calls:
                call = calls.pop()
                call.refuse(RuntimeDiedError(self._runtime, _ENDED) if call.begun else self._refusal())

    def _refusal(self) -> RuntimeClosedError | RuntimeDiedError:
        if self.died:
            return RuntimeDiedError(self._runtime, _ENDED)
        return RuntimeClosedError(self._runtime)
