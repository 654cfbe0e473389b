"""The crew: this process's side of one worker, and of the runs that it has been given."""

import asyncio
import itertools
import pickle
import signal
from collections.abc import Callable
from typing import Any

from homeloop._affinity import Affinity
from homeloop._events import LoopBlocked, WorkerEnded, WorkerLost, WorkerStarted, emit, logger
from homeloop.errors import (
    CallTimeoutError,
    NotTransferableError,
    RuntimeDiedError,
    WorkerDiedError,
    WorkerStartError,
)
from homeloop.isolation._forge import Channel, Forge
from homeloop.isolation._output import StartOutput
from homeloop.isolation._packed_error import pack_error
from homeloop.isolation._tier import Signs, Work
from homeloop.isolation._transfer import carry, loads
from homeloop.isolation._wire import Kind, frame
from homeloop.isolation._worker import Answer, Ready

_READY = 30.0  # seconds for a forked worker to say that it is there: its initializer is in it. A guess
_LAST = 5.0  # seconds for the kernel to end a killed process; a guess


class Run:
    """A run that a worker has been given."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.cancelling = False
        self.blocked = False
        self.waiting_at: tuple[str, ...] = ()


class Crew:
    """
    One worker, as seen from here. (A crew of one: it runs one scope at a time.)

    Thread: the executor's loop.
    """

    def __init__(self, executor: str, forge: Forge, grace: float, terminate_grace: float) -> None:
        self.pid = 0
        self.home: Affinity
        self.thread_ident = 0
        self.runs = 0
        self.memory = 0
        self.lost = False  # it will not answer any more
        self.on_end: Callable[[], object] = lambda: None
        self._executor = executor
        self._forge = forge
        self._grace = grace
        self._terminate_grace = terminate_grace
        self._numbers = itertools.count(1)
        self._given: dict[int, Run] = {}
        self._leaving: dict[int, asyncio.Future[Signs]] = {}
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exited: asyncio.Future[int | None]
        self._channel = Channel(self._hear, self._lose)
        self._output: StartOutput | None = None
        self.told_to_end = False
        self._blocked_at: tuple[str, ...] = ()  # when its loop was blocked last

    @property
    def is_there(self) -> bool:
        """Whether the worker can be given a run; not, if it was killed while it had none."""
        return not self.lost and not self._exited.done() and self._channel.is_open()

    async def start(self) -> None:
        """
        Have the worker forked and wait until it is there.

        Raises:
            IsolationError: The system refuses another process.
            WorkerStartError: It did not come up.
        """
        self._output = output = StartOutput()
        try:
            self.pid, end, self._exited = await self._forge.fork(output.end)
        except BaseException:
            output.close()
            raise
        output.give_away()
        await self._channel.open(end)
        # Not only the end of its wire: a child that the work has forked may keep that open.
        self._exited.add_done_callback(lambda _: self._channel.finish())
        try:
            ends = (self._ready, self._gone)
            await asyncio.wait(ends, timeout=_READY, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready.done():
                late = "" if self._gone.done() else f"it was not ready after {_READY:g} s"
                exitcode = self._exited.result() if self._exited.done() else None
                raise WorkerStartError(f"worker process {self.pid}", exitcode, late, output.last_lines())
            ready = self._ready.result()
        except BaseException:
            self._forge.kill(self.pid, signal.SIGKILL)
            output.close()
            raise
        self.home, self.thread_ident = ready.home, ready.thread_ident
        emit(WorkerStarted(self._executor, self.pid))

    def give_up_start(self) -> None:
        """Kill the worker while `start` waits for it, which raises then; nobody is told that it was lost."""
        self.told_to_end = True
        self._forge.kill(self.pid, signal.SIGKILL)

    async def run(self, work: Work, payload: bytes) -> Answer:
        """
        Give a run to the worker and wait for the answer.

        Raises:
            CallTimeoutError, WorkerDiedError: as `IsolationExecutor.run`.

        Cancellation: soft cancel, then SIGTERM, then SIGKILL, each with its budget.
        """
        number = next(self._numbers)
        run = self._given[number] = Run(work)
        self.runs += 1
        self._blocked_at = ()
        try:
            self._channel.send(frame(Kind.RUN, number, payload))
            if self.lost:
                await self._tell_lost()
            try:
                await asyncio.wait((run.answer,), timeout=work.left)
                if not run.answer.done():
                    killed = await _whole(self._end_run(number, run))
                    return self._late(run, killed)
            except asyncio.CancelledError:
                if not run.answer.done():
                    await _whole(self._end_run(number, run))
                raise
            return run.answer.result()
        finally:
            del self._given[number]
            if run.answer.done() and not run.answer.cancelled():
                run.answer.exception()  # seen

    async def leave(self, room: int) -> Signs:
        """Have the worker close a room; tell what was left in it."""
        if self.lost:
            return Signs()
        left = self._leaving[room] = asyncio.get_running_loop().create_future()
        self._channel.send(frame(Kind.LEAVE, room))
        try:
            await asyncio.wait((left, self._gone), timeout=2 * self._grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._leaving[room]
        if left.done():
            signs: Signs = left.result()
            return signs
        if not self._gone.done():  # blocked: it cannot be used any more
            await _whole(self._kill())
        return Signs(abandoned=True)

    async def end(self, reason: str, budget: float | None = None) -> None:
        """Have the worker stop, in its grace or ``budget`` seconds, else kill it; return when it has ended."""
        is_first, self.told_to_end = not self.told_to_end, True
        self._channel.send(frame(Kind.STOP, 0))
        if await _done(self._exited, self._grace if budget is None else budget):
            if is_first:  # the executor may close while a worker is replaced
                emit(WorkerEnded(self._executor, self.pid, self.runs, reason))
        else:
            await self._kill()
        self._channel.finish()
        if self._output is not None:
            self._output.close()

    def close_copies(self) -> None:
        """Close, in a forked child, the copies of the parent's descriptors."""
        self._channel.close_copy()
        if self._output is not None:
            self._output.drop()

    # -- inside ------------------------------------------------------------------------------------

    async def _end_run(self, number: int, run: Run) -> bool:
        """Cancel a run; tell whether the worker had to be killed for it."""
        self._channel.send(frame(Kind.CANCEL, number))
        if await _done(run.answer, self._grace):
            return False
        run.blocked = not run.cancelling  # now: what ends a worker lets its loop go on for a moment
        await self._kill()
        return True

    async def _kill(self) -> None:
        self.told_to_end = False  # an end by force is worth telling
        for number, budget in ((signal.SIGTERM, self._terminate_grace), (signal.SIGKILL, _LAST)):
            self._forge.kill(self.pid, number)
            if await _done(self._gone, budget):
                return
        self._channel.finish()  # not even that: answer those who wait

    def _late(self, run: Run, killed: bool) -> Answer:
        """Return the answer of a run that finished by itself after all; else tell where it was."""
        answer = run.answer.result() if run.answer.done() and run.answer.exception() is None else None
        if answer is not None and (answer.error is None or answer.error.kind != _CANCELLED):
            return answer
        work = run.work
        work.signs.abandoned |= killed
        blocked_at = self._blocked_at if run.blocked else ()
        work.signs.blocked |= run.blocked
        late = CallTimeoutError(work.name, work.timeout or 0.0, run.waiting_at, blocked_at, killed=killed)
        if run.answer.done() and (error := run.answer.exception()) is not None:
            late.__cause__ = error
        raise late

    async def _tell_lost(self) -> None:
        """Answer for the worker, once it is known how it ended."""
        await _done(self._exited, _LAST)
        exitcode = self._exited.result() if self._exited.done() else None
        for run in self._given.values():
            if not run.answer.done():
                run.answer.set_exception(
                    WorkerDiedError(run.work.name, self.pid, exitcode, run.work.progress.last)
                )
        if not self.told_to_end:
            self.told_to_end = True
            emit(WorkerLost(self._executor, self.pid, self.runs, exitcode))
        if not self._gone.done():
            self._gone.set_result(None)

    def _lose(self) -> None:
        self.lost = True
        self._telling = asyncio.ensure_future(self._tell_lost())
        self.on_end()

    def _hear(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.READY:
            self._ready.set_result(loads(payload))  # even if nobody waits for it any more
        elif kind is Kind.EVENT:
            self._hear_event(payload)
        elif kind is Kind.LEFT and (left := self._leaving.get(number)) is not None and not left.done():
            left.set_result(pickle.loads(payload))
        elif (run := self._given.get(number)) is not None:
            self._hear_of(run, kind, number, payload)

    def _hear_of(self, run: Run, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.PROGRESS:
            self._deliver(run, number, payload)
        elif kind is Kind.CANCELLING:
            run.cancelling, run.waiting_at = True, loads(payload)
        elif kind is Kind.DONE and not run.answer.done():
            answer: Answer = pickle.loads(payload)
            self.memory = answer.memory
            if self.told_to_end and answer.error is not None and answer.error.kind == _CANCELLED:
                closed = RuntimeDiedError(self._executor, "the executor was closed, which cancelled the call")
                run.answer.set_exception(closed)  # by us, not by itself
            else:
                run.answer.set_result(answer)

    def _hear_event(self, payload: bytes) -> None:
        try:
            event = loads(payload)
        except Exception:  # of a kind that is only known over there
            logger.warning("worker process %d told of something that cannot be rebuilt here", self.pid)
            return
        if isinstance(event, LoopBlocked):
            self._blocked_at = event.blocked_at
        emit(event)

    def _deliver(self, run: Run, number: int, payload: bytes) -> None:
        which, packed_args = loads(payload)
        loop = asyncio.get_running_loop()
        try:
            delivery = run.work.progress.send(*loads(packed_args))
        except Exception as error:  # what was reported is of a kind that is only known over there
            refusal = NotTransferableError("a report", repr(error), "report what both processes can import")
            self._channel.send(frame(Kind.ACK, number, carry((which, pack_error(refusal)))))
            return
        if delivery is None:
            self._channel.send(frame(Kind.ACK, number, carry((which, None))))
            return

        def heard(done: Any) -> None:  # on whatever thread the callback ran
            error = done.exception()
            packed = None if error is None else pack_error(error)
            ack = frame(Kind.ACK, number, carry((which, packed)))
            try:
                loop.call_soon_threadsafe(self._channel.send, ack)
            except RuntimeError:  # the executor is closed
                pass

        delivery.add_done_callback(heard)


_CANCELLED = "asyncio.exceptions.CancelledError"


async def _done(future: "asyncio.Future[Any]", timeout: float) -> bool:
    await asyncio.wait((future,), timeout=timeout)
    return future.done()


async def _whole(coroutine: Any) -> Any:
    """Await something to its end, whoever cancels meanwhile; then be cancelled."""
    task = asyncio.ensure_future(coroutine)
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
