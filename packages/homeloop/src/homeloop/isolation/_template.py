"""
The template: a process that has imported what workers need, and forks them.

It has one thread and opens nothing, so its children begin clean; a worker costs milliseconds and shares
the template's memory. This module runs in that process; `homeloop.isolation._forge` talks to it.
"""

import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from homeloop.isolation._output import divert_stderr, restore_stderr
from homeloop.isolation._transfer import Main
from homeloop.isolation._wire import HEADER, Kind, frame
from homeloop.isolation._worker import WorkerOptions, serve

FOR_EVERYBODY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else ()
"""Signals that all processes of a program get at once, and that its parent answers for them."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a template needs to know."""

    parent: int  # process id
    argv: list[str]
    folder: str | None
    main: tuple[str, str] | None
    preload: tuple[str, ...]
    worker: WorkerOptions


def main(fd: int, stderr: int) -> None:
    """
    Be a template until the parent is gone, or in a child a worker; does not return.

    Args:
        fd: The wire.
        stderr: Where to write stderr when it has started; until then the parent wants it.
    """
    os.set_inheritable(stderr, False)
    control = socket.socket(fileno=fd)
    # A terminal sends Ctrl-C to all of its processes, a service manager SIGTERM; what is to end here is the
    # parent's decision.
    for number in FOR_EVERYBODY:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_EVERYBODY)  # blocked so far, see `Forge.start`
    _, _, length = HEADER.unpack(_read(control, HEADER.size))
    setup: Setup = pickle.loads(_read(control, length))
    die_with(setup.parent)
    sys.argv[:] = setup.argv
    if setup.folder is not None:
        os.chdir(setup.folder)
    Main.origin = setup.main
    for name in setup.preload:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the workers' collectors would write to, and so copy, all that was imported
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    restore_stderr(stderr)
    _tell(control, Kind.PREPARED, 0, threads)
    wires = _Template(control).serve()
    if wires is not None:
        serve(*wires, setup.worker)
    os._exit(0)


class _Template:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._pid = os.getpid()

    def serve(self) -> tuple[socket.socket, int] | None:
        """
        Fork on demand; return when the parent has gone.

        Returns:
            In a child, a worker's connection, and where its stderr is to go. None when the parent has gone.
        """
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        wires: tuple[socket.socket, int] | None = None
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if wake.fileno() in ready:
                    wake.recv(4096)
                    self._reap()
                if self._control.fileno() in ready:
                    try:
                        header, descriptors, *_ = socket.recv_fds(self._control, HEADER.size, 2)
                    except ConnectionResetError:  # the parent has gone without hearing the last that we told it
                        return None
                    if not header:
                        return None
                    header += _read(self._control, HEADER.size - len(header))
                    wires = self._do(header, descriptors)
                    if wires is not None:
                        return wires
        finally:
            signal.set_wakeup_fd(-1)
            wake.close()
            waker.close()
            if wires is None:
                self._end_children()
            self._control.close()

    def _do(self, header: bytes, descriptors: list[int]) -> tuple[socket.socket, int] | None:
        kind, number, signal_number = HEADER.unpack(header)
        if kind == Kind.FORK:
            return self._fork(number, *descriptors)
        if kind == Kind.KILL and number in self._children:  # not reaped yet, so the number is still its own
            os.kill(number, signal_number)
        return None

    def _fork(self, number: int, wire: int, stderr: int) -> tuple[socket.socket, int] | None:
        sys.stdout.flush()
        sys.stderr.flush()
        child, why = 0, ""
        try:
            child = os.fork()
        except OSError as error:  # no memory, or too many processes
            why = str(error)
        if child == 0 and not why:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with(self._pid)
            os.set_inheritable(wire, False)  # what a worker starts must not keep its connection open
            return socket.socket(fileno=wire), divert_stderr(stderr)
        os.close(wire)
        os.close(stderr)
        if child:
            self._children.add(child)
        _tell(self._control, Kind.FORKED, child, (number, why))
        return None

    def _reap(self) -> None:
        for child in tuple(self._children):
            try:
                ended, status = os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                ended, status = child, 0
            if ended:
                self._children.discard(child)
                code = os.waitstatus_to_exitcode(status)
                _tell(self._control, Kind.EXITED, child, code)

    def _end_children(self) -> None:
        # Their connections are at an end, too, and they are ending; who does not is killed with us.
        for child in self._children:
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, where it can."""
    if sys.platform == "linux":
        import ctypes  # here, as Python 3.12 cannot import it in sub-interpreters, which import this module

        libc: Any = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _nothing(number: int, _: object) -> None:
    """Let a signal interrupt what waits."""


_PR_SET_PDEATHSIG = 1  # prctl(2)


def _tell(control: socket.socket, kind: Kind, number: int, what: object) -> None:
    """Tell the parent, unless it has gone: that is noticed where its next order is waited for."""
    with suppress(BrokenPipeError, ConnectionResetError):
        control.sendall(frame(kind, number, pickle.dumps(what)))


def _read(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = control.recv(size - len(data))
        if not more:
            sys.exit(1)  # the parent has gone
        data += more
    return data
