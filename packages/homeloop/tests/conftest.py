"""What every test of the library needs: a runtime of its own, scripts in processes of their own, no leftovers."""

import os
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
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
    import asyncio

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
