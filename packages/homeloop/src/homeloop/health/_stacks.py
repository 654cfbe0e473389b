"""The stacks: what every thread of this process does, and where every task waits."""

from collections.abc import Iterable
from typing import Any

from homeloop.health._census import Loop, find_tasks, task_name
from homeloop.runtime import await_chain, loop_affinity, real_threading, thread_stack

_FRAMES = 50  # of a thread
_MOST = 1000  # tasks


def tell_stacks(loops: Iterable[Loop]) -> dict[str, Any]:  # Any: what JSON knows
    """
    Tell what every thread does, and where every pending task waits, the first thousand of them.

    Args:
        loops: Those that are known; see `find_tasks`.

    Thread: any.
    """
    pending = [task for task in find_tasks(loops) if not task.done()]
    tasks = [
        {
            "name": task.get_name(),
            "coroutine": task_name(task),
            "loop": loop_affinity(task.get_loop()).loop,
            "waiting_at": await_chain(task),
        }
        for task in pending[:_MOST]
    ]
    return {"threads": tell_threads(), "tasks": tasks, "pending_tasks": len(pending)}


def tell_threads() -> list[dict[str, Any]]:  # Any: what JSON knows
    """Tell what every thread does. Thread: any."""
    return [
        {"name": thread.name, "stack": thread_stack(thread.ident, _FRAMES)}
        for thread in real_threading().enumerate()
    ]
