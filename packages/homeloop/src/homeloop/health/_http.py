"""A small HTTP server on a thread of its own, which keeps nobody waiting for a visitor that is slow or stuck."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from homeloop._events import logger
from homeloop.runtime import get_ident, leave_thread, real_selectors, real_socket, real_threading

_MOST_VISITORS = 128
_MOST_HEAD = 8192  # bytes of a request's head
_ASKING = 5.0  # seconds that a request may take to come
_TAKING = 10.0  # seconds after which a visitor is let go that takes nothing of what it is sent
_SEND_BUFFER = 65536  # bytes that the system keeps for a visitor; a stuck one shall not cost more
_SWEEP = 1.0  # seconds between two looks for visitors that are late
_REST = 1.0  # seconds for which nobody new is let in when the system has no descriptor for him
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a visitor asks for; the names of ``headers`` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a visitor is sent.

    Attributes:
        topic: If not None, the visitor stays, and is sent what is published under this word from now on.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    topic: str | None = None


@dataclass(slots=True)
class _Visitor:
    socket: Any  # of the original socket module, under greenlets
    due: float  # monotonic: when it is let go unless it does something
    head: bytes = b""
    rest: memoryview = field(default_factory=lambda: memoryview(b""))  # of what it is sent
    next: bytes | None = None  # the latest news, when it has taken the rest
    topic: str | None = None
    answered: bool = False


class HttpServer:
    """
    Listens on an address, and answers GET and HEAD.

    Args:
        answer: Called on the server's thread, so it must not block. An error of its is logged.
        on_topics: Called there with the topics that are followed, when there is one more or one less.
        name: The thread's.
    """

    def __init__(
        self, answer: Callable[[Request], Answer], on_topics: Callable[[frozenset[str]], object], name: str
    ) -> None:
        self._answer = answer
        self._on_topics = on_topics
        self._name = name
        self._visitors: dict[int, _Visitor] = {}  # by descriptor
        self._topics: frozenset[str] = frozenset()
        self._news: dict[str, bytes] = {}
        self._closing = False
        self._rests_until: float | None = None  # monotonic
        self._thread: Any = None
        self._sockets: list[Any] = []  # to close in the end: what it listens on, and what wakes it

    def open(self, host: str, port: int) -> int:
        """
        Begin to listen; return the port, which the system chooses if it is 0.

        Raises:
            OSError: The address is in use, or none of this machine's.
        """
        socket = real_socket()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = listener = socket.socket(family)
        self._sockets.append(listener)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_MOST_VISITORS)
            self._wake_out, self._wake_in = socket.socketpair()
            self._sockets += (self._wake_out, self._wake_in)
            for each in self._sockets:
                each.setblocking(False)
            self._begin()
        except BaseException:
            self._close_sockets()
            raise
        number: int = listener.getsockname()[1]
        return number

    def _begin(self) -> None:
        selectors = real_selectors()
        # Not epoll, whose set would be shared with forked children.
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._read, self._write = selectors.EVENT_READ, selectors.EVENT_WRITE
        self._selector.register(self._listener, self._read)
        self._selector.register(self._wake_out, self._read)
        self._thread = real_threading().Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()

    def close(self, timeout: float) -> bool:
        """Send all visitors away; wait for the thread at most so many seconds, and tell whether it has ended."""
        self._closing = True
        self._wake()
        if self._thread.ident != get_ident():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def publish(self, news: Mapping[str, bytes]) -> None:
        """Send news to those who follow their topics; what they have not taken yet is left out. Thread: any."""
        self._news = dict(news)
        self._wake()

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of the sockets that the parent goes on to serve."""
        self._close_sockets()
        for visitor in self._visitors.values():
            visitor.socket.close()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"!")
        except OSError:  # it is awake, or has ended
            pass

    # -- on the thread ----------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closing:
                is_idle = not self._visitors and self._rests_until is None
                for key, events in self._selector.select(None if is_idle else _SWEEP):
                    self._handle(key.fileobj, events)
                self._sweep()
                self._tell_topics()
        except Exception:
            logger.exception("the server of the health page has ended")
        finally:
            for visitor in tuple(self._visitors.values()):
                self._dismiss(visitor)
            self._close_sockets()
            self._selector.close()
            leave_thread()

    def _handle(self, socket: Any, events: int) -> None:
        if socket is self._listener:
            self._welcome()
        elif socket is self._wake_out:
            self._spread_news()
        elif (visitor := self._visitors.get(socket.fileno())) is not None:  # not dismissed in this round
            try:
                if events & self._read:
                    self._hear(visitor)
                if events & self._write and socket.fileno() in self._visitors:
                    self._send(visitor)
            except OSError:  # it has left
                self._dismiss(visitor)

    def _welcome(self) -> None:
        try:
            socket, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # it has left
            return
        except OSError as error:
            # No descriptors, mostly. Whoever waits outside would be told of again at once, and keep a core busy.
            logger.warning("the health page lets nobody in for %g s: %s", _REST, error)
            self._selector.unregister(self._listener)
            self._rests_until = time.monotonic() + _REST
            return
        if len(self._visitors) >= _MOST_VISITORS:
            waiting = [each for each in self._visitors.values() if not each.answered]
            if not waiting:
                socket.close()
                return
            self._dismiss(min(waiting, key=lambda each: each.due))
        socket.setblocking(False)
        try:
            socket.setsockopt(real_socket().SOL_SOCKET, real_socket().SO_SNDBUF, _SEND_BUFFER)
        except OSError:  # it has left: macOS tells here
            socket.close()
            return
        self._visitors[socket.fileno()] = _Visitor(socket, time.monotonic() + _ASKING)
        self._selector.register(socket, self._read)

    def _hear(self, visitor: _Visitor) -> None:
        part = visitor.socket.recv(_MOST_HEAD)
        if not part:
            self._dismiss(visitor)
        elif not visitor.answered:  # what comes afterwards is nobody's business
            visitor.head += part
            if len(visitor.head) > _MOST_HEAD:
                self._reply(visitor, plain(431, "the request is too long"), "GET")
            elif b"\r\n\r\n" in visitor.head:
                request = _parse(visitor.head)
                if request is None:
                    self._reply(visitor, plain(400, "this is not HTTP"), "GET")
                else:
                    self._reply(visitor, self._answer_to(request), request.method)

    def _answer_to(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return plain(405, "this page is only read", {"Allow": "GET, HEAD"})
        try:
            return self._answer(request)
        except Exception:
            logger.exception("the health page could not answer %s", request.path)
            return plain(500, "see the log")

    def _reply(self, visitor: _Visitor, answer: Answer, method: str) -> None:
        visitor.answered, visitor.head = True, b""
        headers = {**answer.headers, "Connection": "close"}
        if answer.topic is None:
            headers["Content-Length"] = str(len(answer.body))
        lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", *(f"{k}: {v}" for k, v in headers.items())]
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        visitor.rest = memoryview(head + (b"" if method == "HEAD" else answer.body))
        if method != "HEAD":
            visitor.topic = answer.topic
        visitor.due = time.monotonic() + _TAKING
        self._send(visitor)

    def _send(self, visitor: _Visitor) -> None:
        try:
            sent = visitor.socket.send(visitor.rest)
        except BlockingIOError:
            sent = 0
        if sent:
            visitor.rest = visitor.rest[sent:]
            visitor.due = time.monotonic() + _TAKING
        if not visitor.rest and visitor.next is not None:
            visitor.rest, visitor.next = memoryview(visitor.next), None
        if visitor.rest:
            self._selector.modify(visitor.socket, self._read | self._write)
        elif visitor.topic is None:
            self._dismiss(visitor)
        else:
            self._selector.modify(visitor.socket, self._read)

    def _spread_news(self) -> None:
        try:
            while self._wake_out.recv(4096):
                pass
        except BlockingIOError:
            pass
        news = self._news
        for visitor in tuple(self._visitors.values()):
            if visitor.topic in news:
                visitor.next = news[visitor.topic]
                if not visitor.rest:
                    visitor.due = time.monotonic() + _TAKING  # from now on it has something to take
                    self._selector.modify(visitor.socket, self._read | self._write)

    def _sweep(self) -> None:
        now = time.monotonic()
        if self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None
            self._selector.register(self._listener, self._read)
        for visitor in tuple(self._visitors.values()):
            if now >= visitor.due and (visitor.rest or not visitor.answered):
                self._dismiss(visitor)

    def _tell_topics(self) -> None:
        topics = frozenset(each.topic for each in self._visitors.values() if each.topic is not None)
        if topics != self._topics:
            self._topics = topics
            self._on_topics(topics)

    def _dismiss(self, visitor: _Visitor) -> None:
        if self._visitors.pop(visitor.socket.fileno(), None) is not None:
            self._selector.unregister(visitor.socket)
            visitor.socket.close()


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an answer of one line."""
    return Answer(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, f"{text}\n".encode())


def _parse(head: bytes) -> Request | None:
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in headers:
            return None  # also a header that comes twice: whoever stands in between may read the other one
        headers[name.lower()] = value.strip()
    try:
        target = urlsplit(words[1])
    except ValueError:
        return None
    return Request(words[0], target.path, dict(parse_qsl(target.query)), headers)
