"""The tree of tasks: who awaits whom, alike ones together, with where each was made and what it works for."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Any, cast
from weakref import WeakKeyDictionary

from homeloop._figures import labels_of
from homeloop._provenance import object_records
from homeloop.health._census import AnyTask, Loop, find_tasks, is_langgraphs, task_code, task_name
from homeloop.runtime import await_chain, code_place, loop_affinity, task_context

_MOST_TASKS = 1000
"""Looking into a task takes some 20 µs, and somebody who looks at the page sees no more."""
_MOST_GROUPS = 300
_MOST_NAMES = 3  # tasks that are named of a group
_DEEPEST = 30
_MOST_HOPS = 8  # futures that are looked at between a task and one that awaits it: of a shield in a gather

Told = dict[str, Any]  # Any: what JSON knows


@dataclass(slots=True)
class _Seen:
    """What is known of one task."""

    task: AnyTask
    coroutine: str
    made_at: str
    since: float
    traced: bool
    running: bool
    waiting_at: tuple[str, ...]
    labels: dict[str, str]
    children: "list[_Seen]" = field(default_factory=list["_Seen"])

    @property
    def likeness(self) -> tuple[object, ...]:
        """What is the same of tasks that are told together."""
        return self.coroutine, self.made_at, self.running, self.waiting_at, tuple(self.labels.items())


class TaskTree:
    """
    Looks at tasks, and remembers since when it knows them.

    Thread: any; the loops' threads go on meanwhile, so what is told may be a little out of date.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[AnyTask, float] = WeakKeyDictionary()

    def tell(self, loops: Iterable[Loop]) -> Told:
        """
        Tell of the pending tasks, the first thousand of them, as a tree for each loop.

        Args:
            loops: Those that are known; see `find_tasks`.
        """
        pending = [task for task in find_tasks(loops) if not task.done()]
        seen = [self._see(task) for task in pending[:_MOST_TASKS]]
        roots = _arrange(seen)
        groups = _Budget(_MOST_GROUPS)
        trees: list[Told] = []
        for loop, tasks in _by_loop(roots).items():
            trees.append({"loop": loop_affinity(loop).loop, "groups": list(_groups(tasks, groups, 0))})
        return {
            "pending": len(pending),
            "looked_at": len(seen),
            "groups_left_out": groups.refused,
            "origins": any(each.traced for each in seen),
            "trees": sorted(trees, key=lambda tree: cast("int", tree["loop"])),
        }

    def _see(self, task: AnyTask) -> _Seen:
        record = object_records.get(task)
        spot = record.made_at if record is not None else None
        code = task_code(task)
        known = self._known.setdefault(task, time.monotonic())
        return _Seen(
            task,
            task_name(task),
            str(spot.place())
            if spot is not None
            else ""
            if code is None
            else code_place(code, code.co_firstlineno),
            known if record is None or record.since is None else record.since,
            spot is not None,
            asyncio.current_task(task.get_loop()) is task,
            await_chain(task),
            _labels(task_context(task)),
        )


@dataclass(slots=True)
class _Budget:
    left: int
    refused: int = 0

    def take(self) -> bool:
        if self.left:
            self.left -= 1
            return True
        self.refused += 1
        return False


def _labels(context: Context | None) -> dict[str, str]:
    return {} if context is None else labels_of(context)


def _by_loop(tasks: Iterable[_Seen]) -> dict[Loop, list[_Seen]]:
    found: dict[Loop, list[_Seen]] = {}
    for each in tasks:
        found.setdefault(each.task.get_loop(), []).append(each)
    return found


def _arrange(seen: Sequence[_Seen]) -> list[_Seen]:
    """Put each task below the one that awaits it; return those that no task awaits."""
    by_task = {id(each.task): each for each in seen}
    waiters: dict[int, _Seen] = {}
    for each in seen:
        waited_for: object = getattr(each.task, "_fut_waiter", None)
        if waited_for is not None:
            waiters[id(waited_for)] = each
    roots: list[_Seen] = []
    for each in seen:
        parent = next(_awaiting(each.task, by_task, waiters), None)
        if parent is None or parent is each:
            roots.append(each)
        else:
            parent.children.append(each)
    return roots


def _awaiting(task: AnyTask, by_task: dict[int, _Seen], waiters: dict[int, _Seen]) -> Iterator[_Seen]:
    """Find the tasks that await a task: directly, in a group, or by gather, wait, wait_for or shield."""
    if (direct := waiters.get(id(task))) is not None:
        yield direct
    # What is called when a task is done knows whom it tells; asyncio has no other record of it before 3.14.
    futures: list[Any] = [task]  # it, and what passes on that it is done
    for future in futures:
        callbacks: Iterable[tuple[Any, Any]] = getattr(future, "_callbacks", None) or ()
        for callback, _ in callbacks:
            for held in _held_by(callback):
                found = by_task.get(id(_waits_in(held))) or waiters.get(id(held))
                if found is not None and found.task is not task:
                    yield found
                elif _is_future(held) and len(futures) < _MOST_HOPS and held not in futures:
                    futures.append(held)


# What callbacks hold is anybody's: it is looked at by its type alone, for a proxy's attributes may be code of a
# program's that fails here, or does something.


def _waits_in(held: object) -> object:
    """Return the task that waits in a task group; what is held if it is none."""
    return getattr(held, "_parent_task", None) if issubclass(type(held), asyncio.TaskGroup) else held


def _is_future(held: object) -> bool:
    return hasattr(type(held), "_asyncio_future_blocking")  # as asyncio.isfuture, which asks for its __class__


def _held_by(callback: Any) -> Iterator[object]:
    if type(callback) is partial:
        yield from callback.args
    elif type(callback) is FunctionType:
        for cell in callback.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # it is empty
                pass
    elif hasattr(cast("object", type(callback)), "__self__"):
        yield callback.__self__


def _groups(tasks: Iterable[_Seen], budget: _Budget, depth: int) -> Iterator[Told]:
    alike: dict[tuple[object, ...], list[_Seen]] = {}
    for each in tasks:
        alike.setdefault(each.likeness, []).append(each)
    now = time.monotonic()
    for group in sorted(alike.values(), key=len, reverse=True):
        if not budget.take():
            continue
        first = group[0]
        children = [child for each in group for child in each.children]
        yield {
            "coroutine": first.coroutine,
            "number": len(group),
            "names": [each.task.get_name() for each in group[:_MOST_NAMES]],
            "made_at": first.made_at,
            "is_origin": first.traced,
            "running": first.running,
            "waiting_at": first.waiting_at,
            "oldest": now - min(each.since for each in group),
            "langgraph": is_langgraphs(first.task),
            "labels": first.labels,
            "children": list(_groups(children, budget, depth + 1)) if depth < _DEEPEST else [],
        }


def jobs_of(tree: Told) -> list[Told]:
    """List what the tasks of a tree work for, by their labels: with the loop, and where each waits."""
    found: dict[tuple[Any, ...], Told] = {}

    def visit(loop: int, groups: Iterable[Told]) -> None:
        for group in groups:
            if group["labels"]:
                key = (loop, *group["labels"].items())
                job = found.setdefault(
                    key,
                    {
                        "loop": loop,
                        "labels": group["labels"],
                        "tasks": 0,
                        "coroutine": group["coroutine"],
                        "waiting_at": group["waiting_at"],
                        "oldest": group["oldest"],
                    },
                )
                job["tasks"] += group["number"]
                job["oldest"] = max(job["oldest"], group["oldest"])
                if group["waiting_at"]:  # the innermost of those that await each other tells most
                    job.update(coroutine=group["coroutine"], waiting_at=group["waiting_at"])
            visit(loop, group["children"])

    for each in tree["trees"]:
        visit(each["loop"], each["groups"])
    jobs = list(found.values())
    return [job for job in jobs if not any(_is_told_better(job, other) for other in jobs)]


def _is_told_better(job: Told, other: Told) -> bool:
    """Whether another one is a part of the same job that says more: a node of its graph, for one."""
    return (
        job["loop"] == other["loop"]
        and len(job["labels"]) < len(other["labels"])
        and job["labels"].items() <= other["labels"].items()
    )
