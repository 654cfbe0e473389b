"""
Tracing: where loops and clients were made, and their misuse before the driver fails on it.

It is off until asked for, with ``HOMELOOP_TRACE=1`` in the environment of a program that imports homeloop or with
``trace.enable(1)``, and is taken off again without a trace. What it sees is logged as a warning and told
to the instruments as a `LoopFault`; nothing is raised, and calls go on as they would.
"""

from dataclasses import dataclass
from operator import itemgetter

from homeloop._events import LoopFault
from homeloop._provenance import Place, loop_records, object_records
from homeloop.runtime import set_trace_level, trace_level

__all__ = ("LoopFault", "Traced", "disable", "enable", "level", "traced")


@dataclass(frozen=True, slots=True)
class Traced:
    """
    Something that tracing knows: a loop, a pool, a client, from level 2 on a task.

    Attributes:
        thing: The object itself; who keeps it keeps it alive.
        number: Its own, and nobody else's later.
        made_at: Where it was made; None if none of the program's own code was involved.
    """

    thing: object
    number: int
    made_at: Place | None


def enable(level: int = 1) -> None:
    """
    Trace this process from now on.

    Args:
        level: 1, for production: where loops, pools and clients are made; locks, queues, events and sockets that
            are used on another loop or thread than their own. 2 adds where tasks are made, 3 (development) tasks
            that are left behind and calls to a loop from another thread.

    Objects that exist already have no record.

    Raises:
        ValueError: There is no such level.

    Thread: any, one after the other, while no other one starts loops.
    """
    set_trace_level(level)


def disable() -> None:
    """Take all hooks off again; what was recorded stays known."""
    set_trace_level(0)


def level() -> int:
    """Return the level, 0 if tracing is off."""
    return trace_level()


def traced() -> list[Traced]:
    """
    Return what tracing knows and is still alive, the oldest first.

    Objects that cannot be referred to weakly are not in it. Thread: any.
    """
    spots = [(number, thing, record.made_at) for number, thing, record in loop_records.items()]
    spots += [(number, thing, record.made_at) for number, thing, record in object_records.items()]
    spots.sort(key=itemgetter(0))
    return [Traced(thing, number, None if spot is None else spot.place()) for number, thing, spot in spots]
