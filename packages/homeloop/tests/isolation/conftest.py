"""What tests of the tiers need: a loop of each kind, an executor that is kept, what is heard of events."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from homeloop import Event, Isolation, IsolationExecutor, add_instrument, default_runtime

APPS = Path(__file__).parent / "apps"
if str(APPS) not in sys.path:
    sys.path.insert(0, str(APPS))  # workers get this process's path

import isolated_work  # noqa: E402 - found by now

DEADLINE = 60.0  # seconds; tells a hang from an answer

ISOLATED = [Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
EVERY = [Isolation.NONE, *ISOLATED]


def _loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return loops
    return {**loops, "uvloop": uvloop.new_event_loop}


LOOPS = _loops()

Go = Callable[..., Any]


@pytest.fixture(params=LOOPS)
def go(request: pytest.FixtureRequest) -> Go:
    """Run an async function on a loop of each kind, within the deadline."""

    def run(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(DEADLINE):
                return await fn(*args)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(bounded())

    return run


@pytest.fixture(scope="module")
def executor() -> Iterator[IsolationExecutor]:
    """An executor with one thread and one process, both started, kept for all tests of a module."""
    with IsolationExecutor(name="kept", max_threads=1, max_processes=1, idle_timeout=3600.0) as kept:
        kept.warm(Isolation.THREAD)
        kept.run_sync(isolated_work.in_thread, 1, isolation=Isolation.THREAD)  # its loop's executor is kept, too
        kept.warm(Isolation.PROCESS)
        default_runtime().close()
        yield kept


Heard = Callable[[type[Event]], list[Any]]


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear of events; ask for those of a type."""
    events: list[Event] = []

    class Ear:
        def notify(self, event: Event) -> None:
            events.append(event)

    remove = add_instrument(Ear())
    try:
        yield lambda kind: [event for event in events if isinstance(event, kind)]
    finally:
        remove()


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Hear of events during the test."""
    with listening() as hear:
        yield hear
