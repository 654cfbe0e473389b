"""What tests of health share: a monitor that is quick, and events that are waited for."""

import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import pytest

from homeloop import Event, HealthMonitor, HealthThresholds, LoopRuntime, add_instrument

BOUND = 20.0  # seconds
Started = subprocess.Popen[str]
E = TypeVar("E", bound=Event)


class Heard:
    """The events of this process, in order, as an instrument hears them."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()

    def notify(self, event: Event) -> None:
        """Keep the event for whoever waits for it."""
        self._events.put(event)

    def wait_for(self, kind: type[E], wanted: Callable[[E], bool] = lambda _: True) -> E:
        """Return the next event of a kind, without those before it; fail if there is none in time."""
        while True:
            try:
                event = self._events.get(timeout=BOUND)
            except Empty:
                pytest.fail(f"no {kind.__name__} within {BOUND:g} s")
            if isinstance(event, kind) and wanted(event):
                return event


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What is heard of this process from now on."""
    instrument = Heard()
    remove = add_instrument(instrument)
    yield instrument
    remove()


@pytest.fixture
def monitor() -> Iterator[HealthMonitor]:
    """A monitor, not started yet, that takes a loop for blocked after 0.2 s; stopped after the test."""
    made = HealthMonitor(thresholds=HealthThresholds(blocked=0.2))
    yield made
    assert made.stop()


@pytest.fixture
def patient() -> Iterator[HealthMonitor]:
    """A monitor that takes no loop for blocked or slow on a busy machine; stopped after the test."""
    made = HealthMonitor(thresholds=HealthThresholds(blocked=60.0, lag=60.0, utilisation=2.0))
    yield made
    assert made.stop()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a blocked loop waits for; set after the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def run_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the sockets of this test's processes; its name is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="homeloop-") as folder:
        monkeypatch.setenv("HOMELOOP_RUN_DIR", folder)
        yield Path(folder)


@pytest.fixture
def start_process() -> Iterator[Callable[[str], Started]]:
    """Start Python source as a process that prints a line when it is ready; killed after the test."""
    with ExitStack() as started:

        def start(source: str) -> Started:
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(source)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=dict(os.environ),
            )
            started.callback(process.wait, BOUND)
            started.callback(process.kill)
            started.enter_context(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


@pytest.fixture
def settle() -> Callable[[LoopRuntime], None]:
    """Wait until a runtime's calls that were answered have no task any more: it ends after the answer."""

    def wait(runtime: LoopRuntime) -> None:
        residence = runtime.residence()
        assert residence is not None
        settled = threading.Event()
        residence.loop.call_soon_threadsafe(settled.set)
        assert settled.wait(BOUND)

    return wait
