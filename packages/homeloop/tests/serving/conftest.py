"""What the tests of serving share: a server that counts, and further runtimes closed after each test."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from homeloop import LoopRuntime
from homeloop.serving import AsyncExecutor

APPS = Path(__file__).parent / "apps"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

Serve = Callable[..., "AbstractContextManager[tuple[str, subprocess.Popen[str]]]"]


class Site:
    """
    An HTTP server on a loop of its own: it answers in JSON, keeps connections and counts.

    Attributes:
        answers: By path, what a request's JSON body is answered with.
        seen: Requests by path.
        open: Connections now.
    """

    def __init__(self, home: LoopRuntime) -> None:
        self.answers: dict[str, Callable[[Any], Any]] = {"/": lambda _: "ok"}
        self.seen: Counter[str] = Counter()
        self.open = 0
        self._home = home
        self._idle = home.run(self._make_event)
        self._server = home.run(asyncio.start_server, self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"

    def close(self) -> None:
        """Wait until no connection is open, and end."""
        self._home.run(self._close, timeout=20)

    def wait_for_no_connection(self) -> None:
        """Wait until no connection is open, a bounded time."""
        self._home.run(self._idle.wait, timeout=20)

    async def _make_event(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    async def _close(self) -> None:
        self._server.close()
        await self._idle.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._idle.clear()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next(
                    (int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), 0
                )
                body = await reader.readexactly(length)
                path = head.split()[1]
                self.seen[path] += 1
                answer = json.dumps(self.answers[path](json.loads(body) if body else None)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    % len(answer)
                )
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self._idle.set()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that is left without a connection."""
    with LoopRuntime(name="server") as home:
        one = Site(home)
        yield one
        one.close()


@pytest.fixture(autouse=True)
def no_further_runtimes(no_threads_left: None) -> Iterator[None]:
    """Close what calls on the default runtime's own thread were run on."""
    yield
    AsyncExecutor.close()


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the applications of these tests."""
    monkeypatch.syspath_prepend(str(APPS))


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run an ASGI application under uvicorn, in a process of its own; yield its URL and the process."""

    @contextmanager
    def start(app: str, **environment: str) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:  # clients wait until it accepts
            host, port = listening.getsockname()
            server = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "--fd", str(listening.fileno()), "--no-access-log", app],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=[listening.fileno()],
                env={**os.environ, "PYTHONPATH": str(APPS), **environment},
            )
        try:
            yield f"http://{host}:{port}", server
        finally:
            server.kill()
            server.communicate()

    return start
