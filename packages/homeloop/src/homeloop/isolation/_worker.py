"""
The worker: runs the work of one scope at a time in a process of its own.

This module runs there; `homeloop.isolation._crew` talks to it. The loop is the main thread's, as in any
program; a second thread watches whether that loop runs, and whether the parent is still there.
"""

import asyncio
import atexit
import logging
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from homeloop._affinity import Affinity
from homeloop._events import Event, LoopBlocked, add_instrument
from homeloop._events import logger as event_logger
from homeloop._user import User, as_user
from homeloop.errors import NotTransferableError
from homeloop.isolation._enclosure import Enclosure
from homeloop.isolation._output import restore_stderr
from homeloop.isolation._packed_error import PackedError, pack_error, unpack_error
from homeloop.isolation._progress import AnyReport, begin_reporting
from homeloop.isolation._tier import Isolation, Signs
from homeloop.isolation._transfer import carry, dumps, load_call, load_named, load_variables, loads
from homeloop.isolation._wire import Frames, Kind, frame
from homeloop.runtime import (
    AWAITED,
    Call,
    end_child,
    end_on_return,
    finish_call,
    forget_in_child,
    get_ident,
    loop_affinity,
    thread_stack,
)

try:
    import resource
except ImportError:  # not on Windows, where there are no workers either
    resource = None  # type: ignore[assignment]

_CHUNK = 1 << 16  # bytes
_FRAMES = 8  # of a stack that is told


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """
    How a worker works.

    Attributes:
        grace: Seconds for clean-up, when it is told to stop or its parent is gone.
        sweep: Seconds that leftover tasks get to end.
        initializer: A pickled function that is called first.
    """

    grace: float
    sweep: float
    block_threshold: float
    max_memory_bytes: int | None
    initializer: bytes | None


@dataclass(frozen=True, slots=True)
class Request:
    """A run, as it is asked for."""

    room: int
    last: bool
    name: str
    context_id: str
    call: bytes  # function and arguments
    variables: bytes
    user: bytes  # a `User` or None: its claims are whatever the program put there
    reports: bool
    coalesces: bool
    path: list[str] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """
    How a run ended.

    Attributes:
        memory: Bytes that the process has allocated; 0 where nobody knows.
        begun: Whether the function was called.
    """

    value: bytes | None
    error: PackedError | None
    signs: Signs
    memory: int
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker's loop and thread."""

    home: Affinity
    thread_ident: int


class _Terminated(SystemExit):
    """Raised by SIGTERM in whatever the loop's thread does."""


def serve(connection: socket.socket, stderr: int, options: WorkerOptions) -> None:
    """
    Be a worker until told to stop; does not return.

    Args:
        stderr: A descriptor, of where to write stderr when the worker is ready.

    Thread: the process's main one.
    """
    if options.max_memory_bytes is not None and resource is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (options.max_memory_bytes, options.max_memory_bytes))
    worker = _Worker(connection, stderr, options)
    signal.signal(signal.SIGTERM, worker.terminate)
    try:
        with asyncio.Runner() as runner:
            try:
                runner.run(worker.live())
            except BaseException:  # such as the SystemExit of a task, which asyncio lets through
                worker.cut_short = True
                raise
            finally:
                worker.end_if_forked()
    except _Terminated:
        pass
    # Without taking the interpreter apart: it would copy all the memory shared with the template, for a second.
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - as multiprocessing's children do
    sys.stdout.flush()
    sys.stderr.flush()
    if worker.terminated:  # so that whoever waits for us sees what it was
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)


class _Worker:
    def __init__(self, connection: socket.socket, stderr: int, options: WorkerOptions) -> None:
        self.options = options
        self._stderr = stderr
        self.terminated = False
        self.cut_short = False  # then how the process ends is the answer, and its runs have no other
        self._is_forked = False
        self._thread_ident = get_ident()
        self._connection = connection
        self._parent = os.getppid()
        self._frames = Frames()
        self._sending = threading.Lock()
        self._rooms: dict[int, Enclosure] = {}
        self._calls: dict[int, Call[Any]] = {}
        self._reports: dict[int, _Reports] = {}
        self._running: dict[int, Request] = {}
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._asked: float | None = None  # when the loop was asked for a sign of life, monotonic
        self._told = False

    def terminate(self, *_: object) -> None:
        """End, by an exception in whatever is being done. The handler of SIGTERM."""
        if not self.terminated:
            self.terminated = self.cut_short = True
            raise _Terminated

    def forget_parent(self) -> None:
        """
        Leave the wire to the worker, in a child that its work has forked, and end with what forked it.

        Called by the fork hook. What the copy of the loop would go on with is the worker's.
        """
        self._is_forked = True
        self._connection.close()
        for call in self._calls.values():
            call.reply = partial(_end_child_of, call)
        if get_ident() == self._thread_ident:
            end_on_return(self._loop, asyncio.Runner.run.__code__)

    def end_if_forked(self) -> None:
        """End this process, if it is a child that the work has forked and that has come back to the loop."""
        if self._is_forked:
            error = sys.exception()
            end_child(error if isinstance(error, SystemExit | KeyboardInterrupt) else RuntimeError(AWAITED))

    async def live(self) -> None:
        """Serve until told to stop."""
        self._loop = asyncio.get_running_loop()
        forget_in_child(self)
        self._stop = asyncio.Event()
        add_instrument(_Forward(self))
        # Events are logged where they are forwarded to.
        event_logger.addFilter(lambda record: not hasattr(record, "homeloop"))
        if self.options.initializer is not None:
            loads(self.options.initializer)()
        threading.Thread(target=self._watch, name="homeloop-watch", daemon=True).start()
        self._loop.add_reader(self._connection, self._read)
        restore_stderr(self._stderr)
        self.send(Kind.READY, 0, carry(Ready(loop_affinity(self._loop), get_ident())))
        await self._stop.wait()

    def send(self, kind: Kind, number: int, payload: bytes) -> None:
        """Send a frame; the parent always reads. Thread: any."""
        try:
            with self._sending:
                self._connection.sendall(frame(kind, number, payload))
        except OSError:  # the parent is gone, which is noticed elsewhere
            pass

    # -- the watching thread -----------------------------------------------------------------------

    def _watch(self) -> None:
        """Look for a loop that is blocked, and for the end of the wire or of the parent."""
        poll = select.poll()
        poll.register(self._connection, 0)  # tells of its end, and of nothing else
        while not poll.poll(self.options.block_threshold * 500) and os.getppid() == self._parent:
            self._look()
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:  # it has ended
            return
        time.sleep(self.options.grace)
        os._exit(1)  # it did not end

    def _look(self) -> None:
        """Ask the loop for a sign of life, and tell if it gives none."""
        now = time.monotonic()
        if not self._running:
            self._asked = None
        elif self._asked is None:
            self._asked, self._told = now, False
            self._loop.call_soon_threadsafe(self._live_sign)
        elif not self._told and now - self._asked >= self.options.block_threshold:
            self._told = True
            self._tell_blocked(now - self._asked)

    def _live_sign(self) -> None:
        self._asked = None

    def _tell_blocked(self, seconds: float) -> None:
        stack = thread_stack(threading.main_thread().ident, _FRAMES)
        home = replace(loop_affinity(self._loop), thread=threading.main_thread().name)
        for request in tuple(self._running.values()):
            room = self._rooms.get(request.room)
            if room is not None:
                room.signs.blocked = True
            event = LoopBlocked(request.context_id, Isolation.PROCESS.value, request.name, home, seconds, stack)
            self.send(Kind.EVENT, 0, carry(event))

    # -- on the loop -------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data = self._connection.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._connection)
            self._stop.set()
            return
        for kind, number, payload in self._frames.feed(data):
            self._hear(kind, number, payload)

    def _hear(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.RUN:
            self._begin(number, payload)
        elif kind is Kind.ACK and number in self._reports:
            self._reports[number].hear(*loads(payload))
        elif kind is Kind.CANCEL and number in self._calls:
            call = self._calls[number]
            call.cancel()
            self.send(Kind.CANCELLING, number, carry(call.waiting_at))
        elif kind is Kind.LEAVE:
            asyncio.Task(self._leave(number), loop=self._loop, context=Context())
        elif kind is Kind.STOP:
            self._stop.set()

    def _begin(self, number: int, payload: bytes) -> None:
        request: Request = pickle.loads(payload)
        context = Context()
        try:
            if request.path is not None:
                sys.path[:] = request.path
            fn, args = load_call(request.call)
            load_variables(request.variables, context)
            _, (user,) = load_named(request.user)
        except NotTransferableError as refusal:
            self._answer(number, Answer(None, pack_error(refusal), Signs(), 0, begun=False))
            return
        reports = self._reports[number] = _Reports(self, number, request.coalesces)
        report = reports.report if request.reports else None
        call = Call(partial(self._live, request, user, fn, args, report), (), context, counted=False)
        call.reply = partial(self._end, number, request, call)
        self._calls[number] = call
        self._running[number] = request
        task = self._loop.create_task(call.drive(finish_call), context=context, name=request.context_id)
        if not call.finished:
            call.task = task
            task.add_done_callback(partial(_end_undriven, call))

    async def _live(
        self, request: Request, user: User | None, fn: Any, args: tuple[Any, ...], report: AnyReport | None
    ) -> Any:
        room = self._rooms.get(request.room)
        if room is None:
            room = Enclosure(request.context_id, Isolation.PROCESS.value, self.options.sweep, exclusive=True)
            self._rooms[request.room] = room
        room.signs = Signs()
        with as_user(user):
            try:
                return await room.run(request.name, begin_reporting(fn, args, report))
            finally:
                if request.last:
                    await room.end()

    def _end(self, number: int, request: Request, call: "Call[Any]") -> None:
        """Answer for a run; it is over."""
        self._calls.pop(number, None)
        self._running.pop(number, None)
        if self.cut_short:
            self._stop.set()
            return
        room = self._rooms.pop(request.room, None) if request.last else self._rooms.get(request.room)
        signs = Signs() if room is None else room.signs
        error = call.take_error()
        value: bytes | None = None
        if error is None:
            try:
                value = dumps(f"the result of {request.name}", call.value, "return data")
            except NotTransferableError as refusal:
                error = refusal
        packed = None if error is None else pack_error(error)
        reports = self._reports.pop(number, None)
        if reports is not None:
            reports.flush()
        self._answer(number, Answer(value, packed, signs, _memory()))

    def _answer(self, number: int, answer: Answer) -> None:
        self.send(Kind.DONE, number, pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))

    async def _leave(self, number: int) -> None:
        room = self._rooms.pop(number, None)
        signs = Signs()
        if room is not None:
            room.signs = signs
            await room.aclose()
        self.send(Kind.LEFT, number, pickle.dumps(signs))


class _Reports:
    """What one run reports: each report waits until the callback has run, unless only the latest counts."""

    def __init__(self, worker: _Worker, number: int, coalesces: bool) -> None:
        self._worker = worker
        self._number = number
        self._coalesces = coalesces
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._count = 0
        self._latest: tuple[Any, ...] | None = None
        self._under_way = False

    async def report(self, *args: Any) -> None:
        """Report, from any loop of this process."""
        if asyncio.get_running_loop() is self._loop:
            await self._report(args)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._report(args), self._loop))

    async def _report(self, args: tuple[Any, ...]) -> None:
        if self._coalesces:
            self._latest = args
            if not self._under_way:
                self.flush()
            return
        number = self._send(args)
        self._waiting[number] = heard = self._loop.create_future()
        try:
            await heard
        finally:
            del self._waiting[number]

    def hear(self, number: int, error: PackedError | None) -> None:
        """Note that the callback has run, and what it raised."""
        self._under_way = False
        if self._coalesces:
            self.flush()
        heard = self._waiting.get(number)
        if heard is None or heard.done():
            return
        if error is None:
            heard.set_result(None)
        else:
            heard.set_exception(unpack_error(error, "the process of the callback"))

    def flush(self) -> None:
        """Send the latest report, if it has not been sent."""
        if self._latest is not None:
            args, self._latest = self._latest, None
            self._under_way = True
            self._send(args)

    def _send(self, args: tuple[Any, ...]) -> int:
        self._count += 1
        self._worker.send(
            Kind.PROGRESS, self._number, pickle.dumps((self._count, dumps("a report", args, "report data")))
        )
        return self._count


class _Forward:
    """Tells the parent what happens here and is worth a warning."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker

    def notify(self, event: Event) -> None:
        """Forward an event."""
        if event.level >= logging.WARNING:
            self._worker.send(Kind.EVENT, 0, carry(event))


def _end_child_of(call: "Call[Any]") -> None:
    end_child(call.take_error())


def _end_undriven(call: "Call[Any]", _: object) -> None:
    if not call.finished:  # cancelled before its first step
        call.refuse(asyncio.CancelledError())


def _memory() -> int:
    """Return how many bytes this process has allocated; 0 where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once a run
            return int(file.read().split()[5]) * _PAGE
    except OSError:
        return 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
