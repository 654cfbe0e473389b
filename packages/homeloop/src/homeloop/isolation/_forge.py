"""The forge: this process's side of the template, from which workers are forked."""

import asyncio
import json
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from homeloop._events import logger
from homeloop.errors import ConfigurationError, IsolationError
from homeloop.isolation._template import FOR_EVERYBODY, Setup
from homeloop.isolation._transfer import Main, main_origin
from homeloop.isolation._wire import HEADER, Frames, Kind, frame
from homeloop.isolation._worker import WorkerOptions
from homeloop.runtime import real_subprocess

_START = 60.0  # seconds to import what is to be preloaded; a guess
_CHUNK = 1 << 18  # bytes
_END = 2.0  # seconds for a template to end when its wire is closed; it has nothing to do

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from homeloop.isolation._template import main; main(int(sys.argv.pop()))"
)


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
        self._forking = asyncio.Lock()
        self._forked: asyncio.Future[int] | None = None
        self._end: socket.socket | None = None
        self._ended: dict[int, asyncio.Future[int | None]] = {}
        self.broken = False

    async def start(self) -> None:
        """
        Start the template and wait until it has imported what is to be preloaded.

        Raises:
            IsolationError: It did not come up; what it wrote to stderr says why.
        """
        ours, theirs = socket.socketpair()
        self._end = ours
        with theirs:
            subprocess = real_subprocess()
            flags: list[str] = subprocess._args_from_interpreter_flags()  # as multiprocessing does
            # The child begins with this thread's mask: until it ignores them, none of these may end it.
            unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_EVERYBODY)
            try:
                self._process = subprocess.Popen(
                    # -P: without it -c imports what lies in the current directory first, a json.py for instance.
                    [sys.executable, *flags, "-P", "-c", _BOOT, str(theirs.fileno()), json.dumps(self._path)],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        await self._channel.open(ours)
        folder = _folder()
        setup = Setup(os.getpid(), sys.argv, folder, main_origin(), self._preload, self._options)
        self._channel.send(frame(Kind.SETUP, 0, pickle.dumps(setup)))
        try:
            async with asyncio.timeout(_START):
                threads = await self._prepared
        except TimeoutError:
            raise IsolationError(f"the template process was not ready after {_START:g} s") from None
        if threads:
            logger.warning(
                "preloading %s has started threads, which workers will not have: %s", self._preload, threads
            )

    async def fork(self) -> tuple[int, socket.socket, "asyncio.Future[int | None]"]:
        """
        Fork a worker; return its process id, our end of its wire, and the future of its exit code.

        Raises:
            IsolationError: The template has ended, or the system refuses another process.
        """
        async with self._forking:
            if self.broken or self._end is None:
                raise IsolationError("the template process has ended")
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    self._forked = asyncio.get_running_loop().create_future()
                    # Past the transport, which knows no descriptors; it has nothing to send.
                    socket.send_fds(self._end, [frame(Kind.FORK, 0)], [theirs.fileno()])
                pid = await self._forked
            except BaseException:
                ours.close()
                raise
            return pid, ours, self._ended[pid]

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a worker, unless it has ended: only its parent can tell safely."""
        self._channel.send(HEADER.pack(Kind.KILL, pid, number))

    async def close(self) -> None:
        """End the template; its workers should have ended."""
        self.broken = True
        self._channel.close()
        await self._reap()

    def abandon(self) -> None:
        """Kill the template, and with it the workers, without waiting. For when the loop is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END)

    def close_copies(self) -> None:
        """Close, in a forked child, the copies of the parent's descriptors."""
        self._channel.close_copy()
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
        elif kind is Kind.FORKED and number == 0:
            if self._forked is not None and not self._forked.done():
                why = pickle.loads(payload)
                self._forked.set_exception(IsolationError(f"another worker process could not be forked: {why}"))
        elif kind is Kind.FORKED:
            self._ended[number] = asyncio.get_running_loop().create_future()
            if self._forked is not None and not self._forked.done():
                self._forked.set_result(number)
        elif kind is Kind.EXITED and (ended := self._ended.pop(number, None)) is not None and not ended.done():
            ended.set_result(pickle.loads(payload))

    def _lost(self) -> None:
        """Nobody can tell any more how the workers end; and they end with the template."""
        self.broken = True
        gone = IsolationError("the template process has ended; its output says why")
        for waiting in (self._prepared, self._forked):
            if waiting is not None and not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # seen, even if nobody waits
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
