"""The forge: this process's side of the template, from which workers are forked."""

import asyncio
import itertools
import json
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from homeloop._events import logger
from homeloop.errors import ConfigurationError, IsolationError, WorkerStartError
from homeloop.isolation._output import StartOutput, own_stderr
from homeloop.isolation._template import FOR_EVERYBODY, Setup
from homeloop.isolation._transfer import Main, main_origin
from homeloop.isolation._wire import HEADER, Frames, Kind, frame
from homeloop.isolation._worker import WorkerOptions
from homeloop.runtime import real_subprocess

_START = 60.0  # seconds to import what is to be preloaded; a guess
_CHUNK = 1 << 18  # bytes
_FORK = 30.0  # seconds to fork; it takes milliseconds, unless the template is stopped. A guess
_TEMPLATE = "the template process, which workers are forked from,"
_END = 2.0  # seconds for a template to end when its wire is closed; it has nothing to do

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from homeloop.isolation._template import main; main(int(sys.argv.pop()), int(sys.argv.pop()))"
)


Exit: TypeAlias = "asyncio.Future[int | None]"
"""The exit code of a worker, or minus the number of the signal that killed it; None if nobody can tell."""


class Channel(asyncio.Protocol):
    """One end of a wire, on a loop: whole frames in, bytes out."""

    def __init__(self, hear: Callable[[Kind, int, bytes], object], lost: Callable[[], object]) -> None:
        self._hear = hear
        self._lost = lost
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self.fd = -1
        self._end: socket.socket | None = None

    async def open(self, end: socket.socket) -> None:
        """Begin to listen on a socket, which is the channel's from now on."""
        self.fd = end.fileno()
        self._end = end
        end.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note what to write to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand on the frames that are whole."""
        for kind, number, payload in self._frames.feed(data):
            self._hear(kind, number, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more will come."""
        self.fd = -1
        self._transport = self._end = None
        self._lost()

    def is_open(self) -> bool:
        """Tell whether the other side is there; it may have gone so lately that the loop has not heard of it."""
        if self._end is None:
            return False
        try:
            return self._end.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def send(self, data: bytes) -> None:
        """Send, unless the other side has gone: that is told by ``lost``."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close this end when all is sent."""
        if self._transport is not None:
            self._transport.close()

    def finish(self) -> None:
        """Hear what the other side, which has ended, has sent, then close; whoever else may have its end open."""
        while self._transport is not None and self._end is not None:
            try:
                data = self._end.recv(_CHUNK)
            except OSError:  # there is no more
                break
            if not data:
                break
            self.data_received(data)
        if self._transport is not None:
            self._transport.abort()

    def close_copy(self) -> None:
        """Close, in a forked child, the copy of the parent's descriptor, and nothing else."""
        if self.fd >= 0:
            os.close(self.fd)


class Forge:
    """
    Starts the template, has it fork, hears of ends.

    Thread: one loop's.
    """

    def __init__(self, path: list[str], preload: tuple[str, ...], options: WorkerOptions) -> None:
        self._path = path
        self._preload = preload
        self._options = options
        self._process: Any = None  # a Popen, of the original subprocess module perhaps
        self._channel = Channel(self._hear, self._lost)
        self._prepared: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._output = StartOutput()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[tuple[int, Exit]]] = {}  # forks, by the number of the request
        self._end: socket.socket | None = None
        self._ended: dict[int, Exit] = {}

    @property
    def is_there(self) -> bool:
        """Whether the template can be asked for a worker; not, if it has ended meanwhile."""
        return not self._gone.done() and self._channel.is_open()

    async def start(self) -> None:
        """
        Start the template and wait until it has imported what is to be preloaded.

        Raises:
            WorkerStartError: It did not come up.
        """
        if not sys.executable:
            raise WorkerStartError(_TEMPLATE, None, "sys.executable does not name the interpreter", "")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = self._spawn(theirs.fileno())
            except OSError as error:
                ours.close()
                raise WorkerStartError(_TEMPLATE, None, f"{type(error).__name__}: {error}", "") from error
        self._output.give_away()
        self._end = ours
        await self._channel.open(ours)
        folder = _folder()
        setup = Setup(os.getpid(), sys.argv, folder, main_origin(), self._preload, self._options)
        self._channel.send(frame(Kind.SETUP, 0, pickle.dumps(setup)))
        await asyncio.wait((self._prepared, self._gone), timeout=_START, return_when=asyncio.FIRST_COMPLETED)
        if not self._prepared.done():
            late = "" if self._gone.done() else f"it was not ready after {_START:g} s"
            raise WorkerStartError(_TEMPLATE, await self._exitcode(), late, self._output.last_lines())
        threads = self._prepared.result()
        if threads:
            logger.warning(
                "preloading %s has started threads, which workers will not have: %s", self._preload, threads
            )

    def _spawn(self, wire: int) -> Any:
        """Start the process; return its Popen."""
        subprocess = real_subprocess()
        flags: list[str] = subprocess._args_from_interpreter_flags()  # as multiprocessing does
        stderr = own_stderr()
        # The child begins with this thread's mask: until it ignores them, none of these may end it.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_EVERYBODY)
        try:
            return subprocess.Popen(
                # -P: without it -c imports what lies in the current directory first, a json.py for instance.
                [sys.executable, *flags, "-P", "-c", _BOOT, str(stderr), str(wire), json.dumps(self._path)],
                pass_fds=(wire, stderr),
                stdin=subprocess.DEVNULL,
                stderr=self._output.end,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            os.close(stderr)

    async def fork(self, stderr: int) -> tuple[int, socket.socket, Exit]:
        """
        Fork a worker; return its process id, our end of its wire, and the future of its exit code.

        Args:
            stderr: A descriptor, for the worker to write to while it starts. The caller closes it.

        Raises:
            IsolationError: The system refuses another process.
            WorkerStartError: The template has ended, or does nothing.

        Cancellation: the worker is ended when it is there.
        """
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                if self._end is not None:
                    # Past the transport, which knows no descriptors; it has nothing to send.
                    with suppress(OSError):  # it has ended, which is about to be heard of
                        socket.send_fds(self._end, [frame(Kind.FORK, number)], [theirs.fileno(), stderr])
            await asyncio.wait((asked, self._gone), timeout=_FORK, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise await self._not_forked()
            pid, ended = asked.result()
        except BaseException:
            ours.close()
            raise
        finally:
            del self._asked[number]
        return pid, ours, ended

    async def _not_forked(self) -> WorkerStartError:
        if not self._gone.done():
            return WorkerStartError("a worker process", None, f"{_TEMPLATE} did not answer for {_FORK:g} s", "")
        return WorkerStartError(_TEMPLATE, await self._exitcode(), "", self._output.last_lines())

    async def _exitcode(self) -> int | None:
        """Return the template's exit code, once it has ended; None if it had to be ended for that."""
        by_itself = self._gone.done()
        self._channel.close()
        await self._reap()
        return self._process.returncode if by_itself else None

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a worker, unless it has ended: only its parent can tell safely."""
        self._channel.send(HEADER.pack(Kind.KILL, pid, number))

    async def close(self) -> None:
        """End the template; its workers should have ended."""
        self._channel.close()
        await self._reap()
        self._output.close()

    def abandon(self) -> None:
        """Kill the template, and with it the workers, without waiting. For when the loop is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END)
        self._output.drop()

    def close_copies(self) -> None:
        """Close, in a forked child, the copies of the parent's descriptors."""
        self._channel.close_copy()
        self._output.drop()
        if self._process is not None:
            self._process.returncode = 0  # it is no child of ours: nobody may wait for it

    async def _reap(self) -> None:
        deadline = asyncio.get_running_loop().time() + _END
        while self._process is not None and self._process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                self._process.kill()
            await asyncio.sleep(_POLL)

    def _hear(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.PREPARED and not self._prepared.done():
            self._prepared.set_result(pickle.loads(payload))
        elif kind is Kind.FORKED:
            self._note_fork(number, *pickle.loads(payload))
        elif kind is Kind.EXITED and (ended := self._ended.pop(number, None)) is not None and not ended.done():
            ended.set_result(pickle.loads(payload))

    def _note_fork(self, pid: int, number: int, why: str) -> None:
        asked = self._asked.get(number)
        if not pid:
            if asked is not None:
                asked.set_exception(IsolationError(f"another worker process could not be forked: {why}"))
        elif asked is None:  # too late: nobody waits for it any more
            self.kill(pid, signal.SIGKILL)
        else:
            self._ended[pid] = ended = asyncio.get_running_loop().create_future()
            asked.set_result((pid, ended))  # with the future: the end may be told before the asking goes on

    def _lost(self) -> None:
        """Nobody can tell any more how the workers end; and they end with the template."""
        self._gone.set_result(None)
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(None)
        self._ended.clear()


_POLL = 0.01  # seconds between looks whether the template has ended


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - it may be gone
    except OSError:
        return None


def check_startable() -> None:
    """
    Raise unless this process may have workers.

    Raises:
        ConfigurationError: It is a worker that is just importing the main program, or the system has no fork.
    """
    if Main.loading:
        raise ConfigurationError(
            "a worker process is importing the main program, and that starts isolated work again",
            'put what the program does under if __name__ == "__main__":',
        )
    if not hasattr(os, "fork"):
        raise ConfigurationError(
            "this system cannot fork, and so has no process tier", "use Isolation.THREAD instead"
        )
