"""What tests of tracing need: a level, and what it tells."""

from collections.abc import Iterator

import pytest

import homeloop
from homeloop import Event, trace


@pytest.fixture
def heard() -> Iterator[list[trace.LoopFault]]:
    """Tracing at level 3, and the faults that it tells of."""
    faults: list[trace.LoopFault] = []

    class Ear:
        def notify(self, event: Event) -> None:
            if isinstance(event, trace.LoopFault):
                faults.append(event)

    remove = homeloop.add_instrument(Ear())
    trace.enable(3)
    yield faults
    trace.disable()
    remove()
