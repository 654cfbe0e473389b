"""The census: how many tasks there are, on which loop, and what they are."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import call
from types import CodeType
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary, ref

from homeloop.runtime import is_ours

Loop = asyncio.AbstractEventLoop
AnyTask = asyncio.Task[Any]  # Any: nobody looks into results

_LANGGRAPH = f"{os.sep}langgraph{os.sep}"
_whose: dict[str, Literal["homeloop", "langgraph", ""]] = {}  # by file
_is_done: Callable[[AnyTask | None], bool] = cast("Any", asyncio.Task).done  # of C, and of tasks of C only
_FEW = 1000  # kinds of tasks that are gone, which need not be forgotten


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


@dataclass(slots=True, eq=False)  # counted by identity, which is quick
class _Kind:
    """
    The tasks of a loop that run the same function.

    Attributes:
        loop: Not kept.
        one_by_one: Whether each has to be looked at: homeloop's coroutine is around another one, or there is none.
    """

    loop: "ref[Loop]"
    name: str
    code: CodeType | None
    is_langgraphs: bool
    one_by_one: bool


class Census:
    """
    Counts the tasks of this process, again and again. Thread: any.

    A task's kind is found once and remembered (some 100 bytes each). What is done for each of tens of thousands
    once a second is what health costs: that is done in C here, the rest for kinds and for tasks that are new.
    """

    def __init__(self) -> None:
        self._kinds: WeakKeyDictionary[Loop, dict[tuple[str, int], _Kind]] = WeakKeyDictionary()
        self._kind_of: dict[ref[AnyTask], _Kind] = {}  # some of tasks that are gone: references stay different

    def take(self, loops: Iterable[Loop]) -> dict[Loop, LoopTasks]:
        """
        Count them.

        Args:
            loops: Those that are known. Others are found by their tasks, where the interpreter tells them.
        """
        references = tuple(find_references(loops))
        tasks: tuple[AnyTask | None, ...] = tuple(map(call, references))
        kinds = tuple(map(self._kind_of.get, references))
        done: Iterable[bool]
        try:
            done = tuple(map(_is_done, tasks))
        except TypeError:  # one has gone meanwhile, or is of a class of its own
            done = tuple(task is not None and task.done() for task in tasks)
        counts = Counter(kinds)
        if None in counts:
            self._learn(references, tasks, kinds)
            kinds = tuple(map(self._kind_of.get, references))
            counts = Counter(kinds)
        ended = Counter(compress(kinds, done))
        self._forget_gone(references)
        tasks_of: dict[Loop, LoopTasks] = {}
        for kind, number in counts.items():
            if kind is not None and not kind.one_by_one and (loop := kind.loop()) is not None:
                _add(tasks_of.setdefault(loop, LoopTasks()), kind, number, number - ended[kind])
        if any(kind is not None and kind.one_by_one for kind in counts):
            for reference, task in zip(references, tasks, strict=True):
                if task is not None and (found := self._kind_of.get(reference)) is not None and found.one_by_one:
                    _count_in(tasks_of.setdefault(task.get_loop(), LoopTasks()), task)
        return tasks_of

    def _learn(
        self,
        references: Sequence["ref[AnyTask]"],
        tasks: Sequence[AnyTask | None],
        kinds: Sequence[_Kind | None],
    ) -> None:
        """Remember the kinds of the tasks that are new: in one frame, as there may be thousands of them."""
        known_of: dict[Loop, dict[tuple[str, int], _Kind]] = {}
        for reference, task, kind in zip(references, tasks, kinds, strict=True):
            if kind is not None or task is None:
                continue
            known = known_of.get(loop := task.get_loop())
            if known is None:
                known = known_of[loop] = self._kinds.setdefault(loop, {})
            coroutine: Any = task.get_coro()
            try:
                # The kind keeps the code, so that nothing else gets its number.
                key = coroutine.__qualname__, id(coroutine.cr_code)
            except AttributeError:  # a generator, or an awaitable of C
                key = "", 0
            kind = known.get(key)
            if kind is None:
                owner = _owner(coroutine)
                one_by_one = not key[1] or owner == "homeloop"
                code = getattr(coroutine, "cr_code", None)
                kind = known[key] = _Kind(ref(loop), key[0], code, owner == "langgraph", one_by_one)
            self._kind_of[reference] = kind

    def _forget_gone(self, references: tuple["ref[AnyTask]", ...]) -> None:
        if len(self._kind_of) > 2 * len(references) + _FEW:
            known = self._kind_of
            self._kind_of = {each: kind for each in references if (kind := known.get(each)) is not None}


def _add(tasks: LoopTasks, kind: _Kind, total: int, pending: int) -> None:
    tasks.total += total
    tasks.langgraph += pending if kind.is_langgraphs else 0
    if pending:
        tasks.pending[kind.name] += pending


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


def references_known(_: Iterable[Loop]) -> "Iterable[ref[AnyTask]]":
    """Return references to all tasks of this process, before Python 3.14."""
    # `asyncio.all_tasks` looks through the tasks of all loops for those of one, so asking it for each of twenty
    # loops takes twenty times as long; and it begins anew when a loop makes a task meanwhile. What it reads is
    # copied in one step.
    known: Any = getattr(asyncio.tasks, "_scheduled_tasks", None)  # since Python 3.12
    if known is None:
        known = cast("Any", asyncio.tasks)._all_tasks
    copied: set[ref[AnyTask]] = known.data.copy()
    return copied


def references_asked_for(loops: Iterable[Loop]) -> "Iterable[ref[AnyTask]]":
    """Return references to the pending tasks of these loops, as any Python tells them."""
    return tuple(ref(task) for loop in loops for task in asyncio.all_tasks(loop))


find_references = references_asked_for if sys.version_info >= (3, 14) else references_known
"""How the tasks of this process are found, of loops that are known at least. Thread: any."""


def find_tasks(loops: Iterable[Loop]) -> tuple[AnyTask, ...]:
    """Return the tasks of this process, of loops that are known at least. Thread: any."""
    return tuple(task for each in find_references(loops) if (task := each()) is not None)


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
