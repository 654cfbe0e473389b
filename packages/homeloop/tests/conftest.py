"""What every test of the library needs: a runtime of its own, scripts in processes of their own, no leftovers."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

from homeloop import LoopRuntime, default_runtime

LEFTOVER_BOUND = 5.0  # seconds a thread may take to end after its test


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    if default_runtime().statistics().home is not None:
        default_runtime().close()
    for thread in set(threading.enumerate()) - before:
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


Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script() -> Script:
    """Run Python source in a process of its own, in development mode, within a bound; return how it ended."""

    def run(source: str, timeout: float = 30.0, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-X", "dev", "-c", textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            check=False,
        )

    return run
