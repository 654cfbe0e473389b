"""The live page: what the loops of this user's processes do, for a browser; told by threads that need no loop."""

import atexit
import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from homeloop._events import logger
from homeloop.health._door import LocalProcess, ask_process, command_of, is_stopped, local_processes
from homeloop.health._http import Answer, HttpServer, Request, plain
from homeloop.health._watchdog import THREAD_NAME, Watchdog
from homeloop.runtime import RLock, forget_in_child

Told = dict[str, Any]  # Any: what JSON knows

_PAUSE = 1.0  # seconds between two looks, while somebody looks
_LOOKS_TO_OTHERS = 3  # every so many looks the other processes are asked, too
_PATIENCE = 0.5  # seconds that another process may take to answer
_STATIC = Path(__file__).with_name("static")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class HealthPage:
    """
    Serve a page that shows what the event loops of this user's processes do, live.

    It shows the processes of this user whose default monitors are started, as ``homeloop ps`` does, and the own
    one, if that has a monitor. What it shows needs a token; it only reads. Two threads serve it, neither of
    which runs a loop, so it answers while every loop is blocked. A forked child serves nothing of it.

    Args:
        own: Tells of the own process; None shows the others alone. See `HealthMonitor.serve`.
        pid: The process that is shown first; by default the own one, or that with the smallest number.
        host: The address to listen on. Whatever listens elsewhere than on this machine is open to the network,
            with the token as its only protection, which passes there in the clear.
        port: The port; the system chooses one if it is 0.
        token: What a visitor must know; a random one by default.
        names: Further names under which it is reached, through a proxy for one. Others are refused, so that no
            foreign site can have its name resolved to this machine; numeric addresses and ``localhost`` are not.

    Raises:
        ValueError: The token is shorter than 16 characters, or not made of letters, digits, ``-``, ``_``.

    Thread: any, for every method.
    """

    def __init__(
        self,
        own: Callable[[], Told] | None = None,
        *,
        pid: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        names: Iterable[str] = (),
    ) -> None:
        if token is not None and (len(token) < 16 or not token.replace("-", "").replace("_", "").isalnum()):
            raise ValueError("a token has 16 letters and digits at least, or - or _")
        self.token = token or secrets.token_urlsafe(32)
        self.host, self.port = host, port
        self._own = own
        self._first = pid
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        self._assets: dict[str, tuple[str, bytes]] = {}
        self._server: HttpServer | None = None
        self._gatherer: Watchdog | None = None
        self._followed: frozenset[str] = frozenset()
        self._looks = 0
        self._others: tuple[LocalProcess, ...] = ()
        self._lock = RLock()  # re-entered by signal handlers
        forget_in_child(self)

    def start(self) -> None:
        """
        Begin to serve. Does nothing if it serves.

        Raises:
            OSError: The address is in use, or none of this machine's.
            RuntimeError: The system gives no thread.
        """
        with self._lock:
            if self._server is not None:
                return
            self._assets = {
                f"/{path.name}": (_TYPES[path.suffix], path.read_bytes())
                for path in _STATIC.iterdir()
                if path.suffix in _TYPES
            }
            self._assets["/"] = self._assets["/index.html"]
            gatherer = Watchdog(self._look, pause=_PAUSE, name=f"{THREAD_NAME}-page-news")
            server = HttpServer(self._answer, self._note_followed, name=f"{THREAD_NAME}-page")
            gatherer.start()
            self._followed = frozenset()  # those who came when it was served before are gone
            # Before the first visitor can come: what is wanted is gathered from then on.
            self._gatherer, self._server = gatherer, server
            try:
                self.port = server.open(self.host, self.port)
            except BaseException:
                self._gatherer = self._server = None
                gatherer.stop(_PATIENCE)
                raise
            atexit.register(self.stop)
        logger.info("the health page is served at %s", self._origin)  # without the token

    def stop(self, timeout: float = 5.0) -> bool:
        """
        Send the visitors away and serve no more. Does nothing if it does not serve.

        Args:
            timeout: Seconds to wait for each of its threads.

        Returns:
            Whether there is no thread of it any more.
        """
        with self._lock:
            server, self._server = self._server, None
            gatherer, self._gatherer = self._gatherer, None
        if server is None or gatherer is None:
            return True
        atexit.unregister(self.stop)
        return all((server.close(timeout), gatherer.stop(timeout)))

    @property
    def address(self) -> str:
        """
        What to open in a browser, the token included: keep it as you keep a password.

        The token stands behind ``#``, which no browser sends to a server or tells another site.
        """
        pid = "" if self._first is None else f"&pid={self._first}"
        return f"{self._origin}/#token={self.token}{pid}"

    @property
    def is_started(self) -> bool:
        """Whether `start` was called, and `stop` was not since, in this process."""
        return self._server is not None

    def forget_parent(self) -> None:
        """Serve nothing of the parent's, in a forked child. Called by the fork hook."""
        if self._server is not None:
            self._server.leave_to_parent()
        self._server = self._gatherer = None
        self._lock = RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- answering, on the server's thread --------------------------------------------------------

    @property
    def _origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def _answer(self, request: Request) -> Answer:
        if not self._is_known(request.headers.get("host", "")):
            return self._with_headers(plain(421, "this is not served under that name"))
        if request.path == "/events":
            return self._with_headers(self._answer_events(request))
        found = self._assets.get(request.path)
        if found is None:
            return self._with_headers(plain(404, "there is no such thing here"))
        return self._with_headers(Answer(200, {"Content-Type": found[0]}, found[1]))

    def _answer_events(self, request: Request) -> Answer:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        # Compared as bytes, in a time that does not tell how much of it is right.
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self.token.encode()):
            return plain(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        topic = request.query.get("pid", "")
        if topic and not (topic.isascii() and topic.isdigit() and len(topic) < 10):
            return plain(404, "this is no number of a process")
        return Answer(200, {"Content-Type": "text/event-stream"}, b": welcome\n\n", topic)

    def _is_known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)  # which no foreign site has as its name
        except ValueError:
            return False
        return True

    @staticmethod
    def _with_headers(answer: Answer) -> Answer:
        return Answer(answer.status, {**answer.headers, **_HEADERS}, answer.body, answer.topic)

    def _note_followed(self, topics: frozenset[str]) -> None:
        self._followed = topics
        gatherer = self._gatherer  # stop() may take it away at any moment
        if topics and gatherer is not None:
            gatherer.wake()

    # -- gathering, on the other thread -----------------------------------------------------------

    def _look(self) -> float:
        topics, server = self._followed, self._server
        if not topics or server is None:
            self._looks = 0
            return 3600.0  # it is woken when somebody comes
        if self._looks % _LOOKS_TO_OTHERS == 0:
            self._others = self._ask_others()
        self._looks += 1
        own = None if self._own is None else self._own()
        processes = [self._summary(each) for each in self._others]
        if own is not None:
            processes.insert(0, self._summary(LocalProcess(os.getpid(), "answered", own["report"])))
        details: dict[int, Told] = {}
        news: dict[str, bytes] = {}
        for topic in topics:
            pid = int(topic) if topic else self._choose(processes)
            if pid is not None and pid not in details:
                details[pid] = self._detail(pid, own)
            told = {"processes": processes, "process": None if pid is None else details[pid]}
            news[topic] = b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"
        server.publish(news)
        return _PAUSE

    def _choose(self, processes: list[Told]) -> int | None:
        if self._first is not None:
            return self._first
        return processes[0]["pid"] if processes else None

    def _ask_others(self) -> tuple[LocalProcess, ...]:
        try:
            found = local_processes(_PATIENCE)
        except (OSError, AttributeError) as error:  # also where there are no such sockets, or no users
            logger.debug("the health page shows its own process only: %s", error)
            return ()
        return tuple(each for each in found if self._own is None or each.pid != os.getpid())

    def _detail(self, pid: int, own: Told | None) -> Told:
        if own is not None and pid == os.getpid():
            return {"pid": pid, "state": "answered", **own}
        if is_stopped(pid):
            return {"pid": pid, "state": "stopped"}
        try:
            return {"pid": pid, "state": "answered", **ask_process(pid, "page", timeout=_PATIENCE)}
        except ProcessLookupError:
            return {"pid": pid, "state": "gone"}
        except (OSError, ValueError):
            return {"pid": pid, "state": "stopped" if is_stopped(pid) else "silent"}

    def _summary(self, process: LocalProcess) -> Told:
        report = process.report
        state = "stopped" if is_stopped(process.pid) else process.state
        return {
            "pid": process.pid,
            "state": state,
            "status": report.get("status"),
            "command": report.get("command") or command_of(process.pid),
            "parent": report.get("parent"),
        }
