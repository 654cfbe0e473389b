"""Tracing of loops: where they are made, that they ran, where they are closed, and what is left on them then."""

import asyncio
import os
import sys
import threading
from typing import Any, cast

from homeloop._provenance import LoopRecord, loop_records, moments
from homeloop.runtime._trace_patches import Method, Patches, Switch
from homeloop.runtime._trace_sites import Loop, is_ours, note_loop, ran_in_parent, report, user_spot


def patch_loops(patches: Patches, kind: Any) -> None:
    """Record every loop of a class."""
    patches.wrap(kind, "__init__", _recording)
    patches.wrap(kind, "run_forever", _running)
    patches.wrap(kind, "close", _closing)


def _recording(original: Method, switch: Switch) -> Method:
    def __init__(self: Loop, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        if switch.is_on:
            loop_records.put(self, LoopRecord(os.getpid(), threading.current_thread().name, user_spot()))

    return __init__


def _running(original: Method, switch: Switch) -> Method:
    def run_forever(self: Loop) -> None:
        if not switch.is_on:
            original(self)
            return
        record = note_loop(self)
        if ran_in_parent(self):
            evidence = "it ran in the parent process, which shares its selector and its sockets with this one"
            report("fork-inherited", self, evidence, self, None, user_spot())
        record.ran_in, record.thread = os.getpid(), threading.current_thread().name
        record.began, record.ended = next(moments), None
        try:
            original(self)
        finally:
            record.ended = next(moments)

    return run_forever


def _closing(original: Method, switch: Switch) -> Method:
    def close(self: Loop) -> None:
        if not switch.is_on or self.is_closed() or self.is_running():
            original(self)
            return
        record = note_loop(self)
        if record.pid != os.getpid():
            original(self)
            return
        # Who shuts the generators down has dealt with the tasks, too; what is left now was made while it ended.
        in_order = getattr(self, "_asyncgens_shutdown_called", False) or sys.exc_info()[1] is not None
        left = [] if in_order else [task for task in asyncio.all_tasks(self) if not is_own(task)]
        generators = [
            each
            for each in list(getattr(self, "_asyncgens", ()))
            if each.ag_frame is not None and not is_own(each)
        ]
        original(self)
        record.closed_at = user_spot()
        if left:
            evidence = f"{len(left)} tasks were still waiting when their loop was closed"
            report("task-spillover", task_name(left[0]), evidence, self, None, record.closed_at)
        elif generators and not in_order:
            evidence = "the loop was closed without shutdown_asyncgens() while this generator was suspended"
            report("asyncgen-cleanup", generators[0].__qualname__, evidence, self, None, record.closed_at)

    return close


def task_name(task: "asyncio.Task[Any]") -> str:
    """Say what a task executes."""
    return f"the task {getattr(task.get_coro(), '__qualname__', task.get_name())}()"


def is_own(thing: Any) -> bool:
    """Say whether a task or a generator executes homeloop's own code."""
    coroutine: Any = cast("Any", thing).get_coro() if isinstance(thing, asyncio.Task) else thing
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "ag_code", None)
    return code is not None and is_ours(code.co_filename)
