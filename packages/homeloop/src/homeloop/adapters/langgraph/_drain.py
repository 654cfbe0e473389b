"""Draining: graphs that run are asked to stop at the end of their superstep, where they can be resumed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from langgraph.runtime import RunControl


class _InFlight:
    """The runs of this process. Adding, removing and copying a set are single steps: no lock."""

    def __init__(self) -> None:
        self.controls: set[RunControl] = set()


_in_flight = _InFlight()


@contextmanager
def draining(options: dict[str, Any]) -> Generator[None, None, None]:
    """Let `drain` reach a run that is made with ``options``; a ``control`` that is among them is used."""
    control = options["control"] = options.get("control") or RunControl()
    _in_flight.controls.add(control)
    try:
        yield
    finally:
        _in_flight.controls.discard(control)


def drain(reason: str = "shutdown") -> int:
    """
    Ask the runs of every `LoopLocalGraph` in this process to stop at the end of their superstep.

    They raise LangGraph's ``GraphDrained``; their checkpoint is written, and they can be resumed. Runs that begin
    later are not asked, nor are those of the process tier.

    Returns:
        How many runs were asked.

    Thread: any, signal handlers too.
    """
    asked = tuple(_in_flight.controls)
    for control in asked:
        control.request_drain(reason)
    return len(asked)
