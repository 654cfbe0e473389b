"""What every test of the library needs: a runtime of its own, scripts in processes of their own, no leftovers."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from psycopg import sql

from homeloop import LoopRuntime, default_runtime

LEFTOVER_BOUND = 5.0  # seconds a thread may take to end after its test


@pytest.fixture
def kept_threads() -> tuple[str, ...]:
    """How the names of threads begin that something kept beyond the test may start."""
    return ()


@pytest.fixture(autouse=True)
def no_threads_left(kept_threads: tuple[str, ...]) -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    if default_runtime().statistics().home is not None:
        default_runtime().close()
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith(kept_threads):
            thread.join(LEFTOVER_BOUND)
            assert not thread.is_alive(), f"{thread.name} was left behind"


def _loop_factories() -> dict[str, Callable[[], object]]:
    factories: dict[str, Callable[[], object]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}


LOOPS = _loop_factories()


@pytest.fixture(params=LOOPS)
def runtime(request: pytest.FixtureRequest) -> Iterator[LoopRuntime]:
    """A runtime on each kind of loop, closed after the test."""
    with LoopRuntime(name="test", loop_factory=LOOPS[request.param], grace=2.0) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_processes_left() -> Iterator[None]:
    """Fail a test that leaves a process behind, running or not waited for."""
    before = _children()
    yield
    left = _children() - before
    assert not left, f"processes were left behind: {left}"


def _children() -> set[psutil.Process]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there are none, as nearly always
        return set()
    return set(psutil.Process().children())


UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""For processes that fork beside threads, or are struck anywhere: a lock of coverage's may be held for ever."""

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script() -> Script:
    """
    Run Python source in a process of its own, in development mode, within a bound; return how it ended.

    What asyncio's debug mode says of slow callbacks is left out: on a busy machine any callback is slow.
    """

    def run(source: str, timeout: float = 30.0, **environment: str) -> "subprocess.CompletedProcess[str]":
        if "os.fork()" in source or "SetAsyncExc" in source:
            environment = {**UNMEASURED, **environment}
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-c", textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            check=False,
        )
        told = ended.stderr.splitlines(keepends=True)
        ended.stderr = "".join(line for line in told if not line.startswith("Executing <"))
        return ended

    return run


@pytest.fixture
def own_database(postgres_url: str) -> Iterator[str]:
    """An empty database, dropped after the test."""
    name = f"homeloop_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


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
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0
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
