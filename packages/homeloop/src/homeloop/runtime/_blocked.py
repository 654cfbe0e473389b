"""Loops whose threads are blocked in ``run``, and the calls that they wait for."""

import asyncio
from contextvars import ContextVar
from typing import Any
from weakref import ref

from homeloop.errors import DeadlockError
from homeloop.runtime._call import Call
from homeloop.runtime._originals import get_ident
from homeloop.runtime._waits import describe_thread


class BlockedLoop:
    """
    A loop that stands still until one call has ended.

    The call's context knows it, and so does what inherits that: tasks, workers, further calls. But only the
    call's own task, and calls and workers' jobs that this one makes, are taken for what the call waits for. A
    background task may wait for the loop as long as it likes.
    """

    __slots__ = ("_calls", "is_blocked", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop | None = loop
        self.thread = get_ident()
        self.is_blocked = True
        self._calls: set[ref[Call[Any]]] = set()  # not a WeakSet: workers ask while others note

    def wait_for(self, call: Call[Any]) -> None:
        """Note that the loop goes on only when this call, too, has ended."""
        self._calls.add(ref(call, self._calls.discard))

    def waits_for(self, task: "asyncio.Task[Any] | None") -> bool:
        """Tell whether the loop goes on only when this task has ended."""
        return task is not None and any(
            (call := each()) is not None and call.task is task for each in tuple(self._calls)
        )

    def go_on(self) -> None:
        """Note that the loop's thread goes on. What inherited this does not keep the loop."""
        self.is_blocked = False
        self.loop = None


blocked_loops: ContextVar[tuple[BlockedLoop, ...]] = ContextVar("homeloop_blocked_loops", default=())
"""The loops that wait for what runs in this context; some may have gone on since."""


def block_for(call: Call[Any], loop: asyncio.AbstractEventLoop) -> BlockedLoop:
    """Note, before it blocks in ``run`` on its own thread, that a loop waits for a call which has not begun."""
    blocked = BlockedLoop(loop)
    blocked.wait_for(call)
    _tell(call, (*(each for each in blocked_loops.get() if each.is_blocked), blocked))
    return blocked


def wait_among(
    blocked: tuple[BlockedLoop, ...],
    asking: "asyncio.Task[Any] | None",
    loop: asyncio.AbstractEventLoop,
    call: Call[Any] | None = None,
) -> None:
    """
    Refuse to wait for a loop that is blocked for the one who asks.

    Args:
        blocked: Loops that may be.
        asking: The task that asks, or for which a worker does.
        loop: The loop that is to be waited for.
        call: What is to be waited for there, if that is a call.

    Raises:
        DeadlockError: It would be for ever.
    """
    for each in blocked:
        if each.is_blocked and each.waits_for(asking):
            if each.loop is loop:
                raise DeadlockError((describe_thread(each.thread), describe_thread(get_ident())))
            if call is not None:
                each.wait_for(call)
    if call is not None and not blocked_loops.get():  # a worker's context need not be its job's
        _tell(call, blocked)


def pass_on(call: Call[Any]) -> None:
    """
    Note that what is blocked until the current call ends waits for another, suspended or not begun, as well.

    Thread: the loop's own.
    """
    blocked = tuple(each for each in blocked_loops.get() if each.is_blocked)
    for each in blocked:
        each.wait_for(call)
    call.context.run(blocked_loops.set, blocked)


def refuse_circle(loop: asyncio.AbstractEventLoop) -> None:
    """
    Refuse to let the current task wait for a loop that is blocked until this very task has ended.

    Raises:
        DeadlockError: It is.
    """
    blocked = blocked_loops.get()
    if blocked:
        wait_among(blocked, asyncio.current_task(), loop)


def _tell(call: Call[Any], blocked: tuple[BlockedLoop, ...]) -> None:
    # In what the call's context is compared with afterwards, too: the caller must not get it back.
    for context in (call.context, call.before):
        context.run(blocked_loops.set, blocked)
