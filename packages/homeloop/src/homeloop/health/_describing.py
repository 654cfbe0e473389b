"""How a loop is described in a report."""

from collections import Counter
from dataclasses import replace

from homeloop._affinity import Affinity
from homeloop.health._census import Loop, LoopTasks
from homeloop.health._pulse import Pulse
from homeloop.health._report import LoopHealth
from homeloop.runtime import loop_affinity

_MOST_NAMES = 3  # coroutines that are named of a loop


def describe_watched(pulse: Pulse, loop: Loop, tasks: LoopTasks) -> LoopHealth:
    """Describe a loop that is asked for signs of life."""
    stall = pulse.stall
    return LoopHealth(
        name=pulse.name,
        home=pulse.home,
        owner="runtime" if pulse.is_ours else "watched",
        state="blocked" if stall is not None else "running" if loop.is_running() else "idle",
        lag=pulse.lag(),
        utilisation=pulse.utilisation(),
        tasks=tasks.total,
        pending=tasks.pending.total(),
        langgraph=tasks.langgraph,
        most=_most(tasks.pending),
        stall=stall,
        last_stall=pulse.last_stall,
    )


def describe_unknown(loop: Loop, tasks: LoopTasks) -> LoopHealth:
    """Describe a loop that is known by its tasks alone."""
    home = affinity_elsewhere(loop)
    return LoopHealth(
        name=f"loop {home.loop}",
        home=home,
        owner="unknown",
        state="closed" if loop.is_closed() else "running" if loop.is_running() else "idle",
        lag=None,
        utilisation=None,
        tasks=tasks.total,
        pending=tasks.pending.total(),
        langgraph=tasks.langgraph,
        most=_most(tasks.pending),
        stall=None,
        last_stall=None,
    )


def affinity_elsewhere(loop: Loop) -> Affinity:
    """Describe a loop whose thread is not known, as it is not the calling one."""
    return replace(loop_affinity(loop), thread="?")


def _most(pending: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(pending.most_common(_MOST_NAMES))
