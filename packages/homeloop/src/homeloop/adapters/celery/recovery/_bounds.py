"""How long recovery waits: for its store, and for the broker."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BOUND = 10.0
"""Seconds that recovery waits for one step of the store, or for one message to be sent, at most. A guess."""

_left: set[asyncio.Task[Any]] = set()
"""What nobody waits for any more, but runs: the loop alone would not keep it."""


async def bounded(work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
    """
    Await ``work`` for so long, then cancel it and leave it: its clean-up may hang as well.

    Raises:
        TimeoutError: It has taken longer. What became of it is not known.

    Cancellation: ``work`` is cancelled and left, likewise.
    """
    task = asyncio.create_task(work)
    _left.add(task)
    task.add_done_callback(_forget)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        is_over = task.done()
        task.cancel()
    if not is_over:
        raise TimeoutError(f"{what} has not answered for {seconds:g} s")
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio would complain of one that nobody waits for any more
