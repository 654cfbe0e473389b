"""The door: a local socket on which a process tells its owner, and nobody else, how it is."""

import json
import os
import shlex
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from homeloop._events import logger
from homeloop.health._watchdog import THREAD_NAME
from homeloop.runtime import (
    allocate_lock,
    get_ident,
    leave_thread,
    real_selectors,
    real_socket,
    real_threading,
)

Question = Literal["report", "stacks", "page"]
"""The report of a process; what its threads and tasks do; all that its page shows."""

Answers = Mapping[str, Callable[[], object]]

_PATIENCE = 2.0
"""Seconds that whoever asks may take to ask and to listen. A guess."""
_REST = 1.0
"""Seconds for which nobody is let in when the system has no descriptor for him. A guess."""


@dataclass(frozen=True, slots=True)
class LocalProcess:
    """
    A process of this user that has a health monitor.

    Attributes:
        state: Whether it ``"answered"``; if not, whether it is ``"stopped"`` (by SIGSTOP, or a debugger) or just
            ``"silent"``: it may be busy in code that keeps the interpreter's lock.
        report: What it answered: `HealthReport.as_dict`, and its ``command``.
    """

    pid: int
    state: Literal["answered", "stopped", "silent"]
    report: dict[str, Any]  # Any: what JSON knows


class Door:
    """
    A listening socket, and the thread that answers there: a line with a question, then JSON.

    Args:
        answers: By question; called on the door's thread.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._listener: Any = None  # of the original socket module, under greenlets
        self._path = Path()
        self._pid = os.getpid()
        self._thread: Any = None
        self._closing = False
        self._is_ending = False  # the thread: from now on nobody can knock
        self._bell = allocate_lock()  # who gets it need not rest any longer
        self._bell.acquire()

    def open(self) -> None:
        """
        Let the owner ask.

        Raises:
            OSError: The folder cannot be made, or is not the owner's alone, or a socket cannot be made there.
        """
        folder = own_folder()
        path = folder / f"{self._pid}.sock"
        # Under its name only once it listens: who asks before that would take it for one that a dead process
        # left, and remove it.
        unfinished = folder / f"{self._pid}.new"
        unfinished.unlink(missing_ok=True)  # of a dead process that had our number
        listener = real_socket().socket(real_socket().AF_UNIX)
        try:
            listener.bind(str(unfinished))
            unfinished.chmod(stat.S_IRUSR | stat.S_IWUSR)
            listener.listen()
            unfinished.replace(path)
        except BaseException:
            listener.close()
            unfinished.unlink(missing_ok=True)
            raise
        self._listener, self._path = listener, path
        self._thread = real_threading().Thread(target=self._serve, name=f"{THREAD_NAME}-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let nobody ask any more; who is being answered is answered. To be called once."""
        self._closing = True
        self._bell.release()
        try:
            with real_socket().socket(real_socket().AF_UNIX) as knock:
                knock.connect(str(self._path))  # wakes the thread, which closes the listener
        except OSError:
            if not self._is_ending:  # somebody has removed it: the thread stays, and the socket with it
                return
        if self._thread.ident != get_ident():
            self._thread.join(2 * _PATIENCE)

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of the parent's socket, which the parent goes on to listen on."""
        if self._listener is not None:
            self._listener.close()

    def _serve(self) -> None:
        try:
            with self._listener:
                while not self._closing:
                    try:
                        visitor, _ = self._listener.accept()
                    except OSError as error:  # no descriptors, mostly: just then somebody wants to see why
                        logger.warning("homeloop ps cannot ask this process for %g s: %s", _REST, error)
                        self._bell.acquire(True, _REST)
                        continue
                    with visitor:
                        visitor.settimeout(_PATIENCE)
                        self._answer(visitor)
                self._is_ending = True
        finally:
            self._path.unlink(missing_ok=True)
            leave_thread()

    def _answer(self, visitor: Any) -> None:
        try:
            question = visitor.recv(64).decode("ascii", "replace").strip()
            if (answer := self._answers.get(question)) is not None:
                visitor.sendall(json.dumps(answer()).encode())
                # A child forked meanwhile has this socket, too: closing it here would not tell that this is all.
                visitor.shutdown(real_socket().SHUT_WR)
        except OSError:  # gone, or too slow
            pass
        except Exception:
            logger.exception("the health monitor could not answer %s", self._path)


def own_folder() -> Path:
    """
    Return the folder of this user's sockets, made if need be: ``HOMELOOP_RUN_DIR``, else one for the user.

    Raises:
        OSError: It cannot be made, or somebody else owns it or may enter it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(os.environ.get("HOMELOOP_RUN_DIR") or Path(base) / f"homeloop-{os.geteuid()}")
    try:
        folder.mkdir(mode=stat.S_IRWXU)
    except FileExistsError:
        found = folder.lstat()  # not through a link, which might be anybody's
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a folder that its owner alone may enter") from None
    return folder


def ask_process(
    pid: int, question: Question = "report", timeout: float = _PATIENCE
) -> dict[str, Any]:  # Any: what JSON knows
    """
    Ask a process of this user how it is.

    Args:
        question: ``"report"`` for `HealthReport.as_dict` and the process's ``command``; ``"stacks"`` for what its
            threads and tasks do; ``"page"`` for all that its page shows: the report, stacks, a tree of tasks,
            jobs, and the last minutes of lag and load.
        timeout: Seconds to wait for each part of the answer.

    Raises:
        ProcessLookupError: There is no such process, or it has no started monitor with a socket.
        TimeoutError: It does not answer.
        OSError: The folder of the sockets is not the user's alone.

    Thread: any; it blocks.
    """
    path = own_folder() / f"{pid}.sock"
    socket = real_socket()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(timeout)
        try:
            asking.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise ProcessLookupError(f"process {pid} has no health monitor that can be asked") from None
        asking.sendall(question.encode() + b"\n")
        parts: list[bytes] = []
        while part := asking.recv(65536):
            parts.append(part)
    told: dict[str, Any] = json.loads(b"".join(parts))
    return told


def local_processes(timeout: float = _PATIENCE, pids: Iterable[int] | None = None) -> tuple[LocalProcess, ...]:
    """
    Ask every process of this user that has a health monitor with a socket, all at the same time.

    Args:
        timeout: Seconds to wait for each part of an answer.
        pids: Ask these only; those of them that have no such monitor are not in what is returned.

    Raises:
        OSError: The folder of the sockets is not the user's alone.

    Thread: any; it blocks.
    """
    folder = own_folder()
    names = (path.stem for path in folder.glob("*.sock")) if pids is None else map(str, pids)
    numbers = {int(name) for name in names if name.isascii() and name.isdigit()}
    found: list[LocalProcess] = []
    inquiries: list[_Inquiry] = []
    for number in numbers:
        path = folder / f"{number}.sock"
        if not path.exists():
            continue
        if is_stopped(number):
            found.append(LocalProcess(number, "stopped", {}))
            continue
        try:
            inquiries.append(_Inquiry(number, path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # it was killed
        except BlockingIOError:  # so many are asking it already
            found.append(LocalProcess(number, "silent", {}))
    found.extend(_hear(inquiries, timeout))
    return tuple(sorted(found, key=lambda each: each.pid))


class _Inquiry:
    """
    One process that is asked for its report; made, it has been asked.

    Raises:
        OSError: It cannot be reached.
    """

    def __init__(self, pid: int, path: Path) -> None:
        self.pid = pid
        self.parts: list[bytes] = []
        self.is_over = False
        self.socket: Any = real_socket().socket(real_socket().AF_UNIX)
        try:
            self.socket.setblocking(False)
            self.socket.connect(str(path))
            self.socket.sendall(b"report\n")
        except BaseException:
            self.socket.close()
            raise

    def take(self) -> None:
        """Take what has come."""
        try:
            part = self.socket.recv(65536)
        except OSError:  # it ended while it answered
            part = b""
        self.is_over = not part
        self.parts.append(part)

    def told(self) -> LocalProcess:
        """Return what it told, if it told all of it."""
        try:
            return LocalProcess(self.pid, "answered", json.loads(b"".join(self.parts)))
        except ValueError:
            return LocalProcess(self.pid, "stopped" if is_stopped(self.pid) else "silent", {})


def _hear(inquiries: list[_Inquiry], timeout: float) -> list[LocalProcess]:
    selectors = real_selectors()
    with selectors.DefaultSelector() as selector:
        for each in inquiries:
            selector.register(each.socket, selectors.EVENT_READ, each)
        while selector.get_map():
            heard = selector.select(timeout)
            if not heard:
                break
            for key, _ in heard:
                key.data.take()
                if key.data.is_over:
                    selector.unregister(key.fileobj)
    for each in inquiries:
        each.socket.close()
    return [each.told() for each in inquiries]


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, by SIGSTOP or a debugger; False where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:  # not on Linux, or it has ended meanwhile
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")


def command_of(pid: int) -> str:
    """Return the command line of a process that does not tell it; "" where the system does not tell either."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return shlex.join(word.decode("utf-8", "replace") for word in words)
