"""The census: how many tasks there are, on which loop, and what they are."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Literal, cast

from homeloop.runtime import is_ours

Loop = asyncio.AbstractEventLoop
AnyTask = asyncio.Task[Any]  # Any: nobody looks into results

_LANGGRAPH = f"{os.sep}langgraph{os.sep}"
_whose: dict[str, Literal["homeloop", "langgraph", ""]] = {}  # by file


@dataclass(slots=True)
class LoopTasks:
    """
    The tasks of one loop.

    Attributes:
        total: Task objects that there are, ended ones that somebody still refers to included.
        langgraph: Pending ones whose outermost coroutine is LangGraph's own, but for homeloop's around it.
        pending: Those that have not ended, by the name of that coroutine.
    """

    total: int = 0
    langgraph: int = 0
    pending: Counter[str] = field(default_factory=Counter[str])


def take_census(loops: Iterable[Loop]) -> dict[Loop, LoopTasks]:
    """
    Count the tasks of this process.

    Args:
        loops: Those that are known. Others are found by their tasks, where the interpreter tells them.

    Thread: any. One pass of some 0.3 µs a task, which the loops' threads interrupt at will.
    """
    kinds_of: dict[Loop, dict[str, _Kind]] = {}
    one_by_one: list[AnyTask] = []
    # What is done for each of tens of thousands is here, in one frame; all else is done for each kind of them.
    for task in find_tasks(loops):
        kinds = kinds_of.get(loop := task.get_loop())
        if kinds is None:
            kinds = kinds_of[loop] = {}
        coroutine: Any = task.get_coro()
        try:
            name, code = coroutine.__qualname__, coroutine.cr_code
        except AttributeError:  # a generator, or an awaitable of C
            one_by_one.append(task)
            continue
        kind = kinds.get(name)
        if kind is None:
            kind = kinds[name] = _Kind(code, _owner(coroutine))
        if kind.code is not code or kind.owner == "homeloop":  # of the same name; or around another one
            one_by_one.append(task)
        elif task.done():
            kind.ended += 1
        else:
            kind.pending += 1
    tasks_of = {loop: _sum_up(kinds) for loop, kinds in kinds_of.items()}
    for task in one_by_one:
        _count_in(tasks_of[task.get_loop()], task)
    return tasks_of


@dataclass(slots=True)
class _Kind:
    """The tasks of a loop that run the same function."""

    code: CodeType
    owner: Literal["homeloop", "langgraph", ""]
    ended: int = 0
    pending: int = 0


def _sum_up(kinds: dict[str, _Kind]) -> LoopTasks:
    return LoopTasks(
        sum(kind.ended + kind.pending for kind in kinds.values()),
        sum(kind.pending for kind in kinds.values() if kind.owner == "langgraph"),
        Counter({name: kind.pending for name, kind in kinds.items() if kind.pending}),
    )


def _count_in(tasks: LoopTasks, task: AnyTask) -> None:
    tasks.total += 1
    if not task.done():
        coroutine = _outermost(task)
        tasks.langgraph += _owner(coroutine) == "langgraph"
        tasks.pending[_name(coroutine)] += 1


def running_task(loop: Loop) -> str | None:
    """Name the task that a loop runs now: its name, and its coroutine's unless that is homeloop's. Thread: any."""
    task = asyncio.current_task(loop)
    if task is None:
        return None
    coroutine = task.get_coro()
    return repr(task.get_name()) + ("" if _owner(coroutine) == "homeloop" else f" ({_name(coroutine)})")


def task_name(task: AnyTask) -> str:
    """Name the coroutine that a task runs, homeloop's own left out."""
    coroutine = _outermost(task)
    # Of a call that runs at this moment, or has not begun, nobody tells what it has called.
    return "a call" if _owner(coroutine) == "homeloop" else _name(coroutine)


def task_code(task: AnyTask) -> CodeType | None:
    """Return the code of the coroutine that a task runs, homeloop's own left out; None if it has none."""
    coroutine = _outermost(task)
    code: CodeType | None = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    return code


def is_langgraphs(task: AnyTask) -> bool:
    """Tell whether LangGraph made a task."""
    return _owner(_outermost(task)) == "langgraph"


def tasks_known(_: Iterable[Loop]) -> Iterable[AnyTask]:
    """Return all tasks of this process, before Python 3.14."""
    # `asyncio.all_tasks` looks through the tasks of all loops for those of one, so asking it for each of twenty
    # loops takes twenty times as long; and it begins anew when a loop makes a task meanwhile. What it reads is
    # copied in one step.
    known: Any = getattr(asyncio.tasks, "_scheduled_tasks", None)  # since Python 3.12
    if known is None:
        known = cast("Any", asyncio.tasks)._all_tasks
    return tuple(task for each in known.data.copy() if (task := each()) is not None)


def tasks_asked_for(loops: Iterable[Loop]) -> Iterable[AnyTask]:
    """Return the pending tasks of these loops, as any Python tells them."""
    return tuple(task for loop in loops for task in asyncio.all_tasks(loop))


find_tasks = tasks_asked_for if sys.version_info >= (3, 14) else tasks_known
"""How the tasks of this process are found, of loops that are known at least. Thread: any."""


def _outermost(task: AnyTask) -> Any:
    """Return a task's coroutine, without homeloop's own that awaits another one."""
    coroutine: Any = task.get_coro()  # Any: coroutines and generators, told apart by attribute
    while _owner(coroutine) == "homeloop" and hasattr(awaited := coroutine.cr_await, "cr_code"):
        coroutine = awaited
    return coroutine


def _owner(coroutine: Any) -> Literal["homeloop", "langgraph", ""]:
    code = getattr(coroutine, "cr_code", None)
    if code is None:
        return ""
    file: str = code.co_filename
    known = _whose.get(file)
    if known is None:
        known = _whose[file] = "homeloop" if is_ours(file) else "langgraph" if _LANGGRAPH in file else ""
    return known


def _name(coroutine: Any) -> str:
    return getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
