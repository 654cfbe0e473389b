"""Tracing of what a run leaves behind: tasks that it cuts off or waits for, generators that end with it."""

import asyncio
import gc
import sys
import weakref
from contextlib import _AsyncGeneratorContextManager  # pyright: ignore[reportPrivateUsage] - to know one
from types import AsyncGeneratorType, FrameType
from typing import Any, cast

from homeloop._provenance import Spot
from homeloop.runtime._trace_loops import is_own, task_name
from homeloop.runtime._trace_patches import Method, Patches, Switch
from homeloop.runtime._trace_sites import Loop, is_programs, report, user_spot

_PATIENCE = 3.0  # seconds that cancelled tasks may take before they are told of; a guess

_Generator = AsyncGeneratorType[Any, Any]
_cut_off: "set[tuple[weakref.ref[_Generator], weakref.ref[Loop]]]" = set()
"""Generators that ended with their loop, and that the program held on to."""


def patch_leftovers(patches: Patches) -> None:
    """Tell of tasks that are still there when ``asyncio.run`` ends."""
    patches.wrap(asyncio.runners, "_cancel_all_tasks", _cancelling)


def patch_generators(patches: Patches, kind: Any) -> None:
    """Tell of generators that end with a loop of this class, once another loop runs that may go on with them."""
    patches.wrap(kind, "shutdown_asyncgens", _ending_generators)
    patches.wrap(kind, "run_forever", _going_on)


def forget_generators() -> None:
    """Tell of no generator that ended before now."""
    _cut_off.clear()


def _cancelling(original: Method, switch: Switch) -> Method:
    def _cancel_all_tasks(loop: Loop) -> None:
        if not switch.is_on:
            original(loop)
            return
        failed = sys.exc_info()[1] is not None  # then what else was going on is not lost, but cut off
        left = [task for task in asyncio.all_tasks(loop) if not task.done() and not is_own(task)]
        slow = loop.call_later(_PATIENCE, _tell_who_stays, loop, left, user_spot())
        try:
            original(loop)
        finally:
            slow.cancel()
        # A task that ends when it is cancelled and has nothing to lose is a service; one that a program's own
        # function started with work still to do is lost. They cannot be told apart, so only the program's count.
        lost = [] if failed else [task for task in left if task.cancelled() and _is_programs(task)]
        if lost:
            evidence = "asyncio.run() ended and cancelled this task, which nobody had awaited"
            report("task-spillover", task_name(lost[0]), evidence, loop, None, user_spot())

    return _cancel_all_tasks


def _tell_who_stays(loop: Loop, tasks: "list[asyncio.Task[Any]]", spot: Spot | None) -> None:
    staying = [task for task in tasks if not task.done()]
    if staying:
        evidence = f"asyncio.run() has cancelled it, and after {_PATIENCE:.0f} s waits for it still"
        report("task-spillover", task_name(staying[0]), evidence, loop, None, spot)


def _is_programs(task: "asyncio.Task[Any]") -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and is_programs(code.co_filename)


def _ending_generators(original: Method, switch: Switch) -> Method:
    async def shutdown_asyncgens(self: Loop) -> None:
        every: list[_Generator] = list(getattr(self, "_asyncgens", ())) if switch.is_on else []
        begun = [each for each in every if each.ag_frame is not None and is_programs(each.ag_code.co_filename)]
        del every
        failed = sys.exc_info()[1] is not None  # whose traceback may hold them
        await original(self)
        if begun and not failed:
            _cut_off.update((weakref.ref(each), weakref.ref(self)) for each in _held(begun))

    return shutdown_asyncgens


def _held(generators: list[_Generator]) -> list[_Generator]:
    """
    Return the generators that the program holds; not a context manager's, which is not gone on with.

    All that the interpreter keeps is looked through, once for all of them.
    """
    ours = {id(each): each for each in generators}
    held, managed = set[int](), set[int]()
    for holder in gc.get_referrers(*generators):
        if holder is generators or holder is ours or isinstance(holder, FrameType):
            continue
        if type(holder) is dict:
            managed.add(id(cast("dict[str, object]", holder).get("gen")))
        into = managed if isinstance(holder, _AsyncGeneratorContextManager) else held
        into.update(id(each) for each in gc.get_referents(holder) if id(each) in ours)
    return [each for each in generators if id(each) in held - managed]


def _going_on(original: Method, switch: Switch) -> Method:
    def run_forever(self: Loop) -> None:
        for entry in list(_cut_off) if switch.is_on else ():
            generator, ended = entry[0](), entry[1]()
            if ended is self:
                continue  # it clears up
            _cut_off.discard(entry)
            if generator is not None:
                evidence = "it ended with the loop that began it; who goes on with it gets nothing more"
                report("asyncgen-cleanup", generator.__qualname__, evidence, ended, self, user_spot())
        original(self)

    return run_forever
