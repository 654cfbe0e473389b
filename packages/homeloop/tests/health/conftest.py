"""What tests of health share: a monitor that is quick, and events that are waited for."""

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

import pytest

from homeloop import Event, HealthMonitor, HealthThresholds, add_instrument

BOUND = 20.0  # seconds
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
    made = HealthMonitor(thresholds=HealthThresholds(blocked=60.0, lag=60.0, utilisation=2.0), watch_gil=False)
    yield made
    assert made.stop()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a blocked loop waits for; set after the test at the latest."""
    event = threading.Event()
    yield event
    event.set()
