"""Blocks: a stretch of the caller's own code that is kept apart where it stands, in the caller's task."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Self

from homeloop._events import IsolatedRunEnded, IsolatedRunStarted, WorkPlace, emit
from homeloop.errors import WrongLoopError
from homeloop.isolation._enclosure import Enclosure
from homeloop.isolation._statistics import Tally
from homeloop.isolation._tier import Isolation
from homeloop.runtime import get_ident, loop_affinity

ONE_PER_LOOP = "enter, use and leave it on one loop, and make another one for another loop"


class EnclosedBlock(AbstractAsyncContextManager["EnclosedBlock", None]):
    """
    Code that runs in tier context without being a function; made by `IsolationExecutor.enclosed`.

    Entered and left once, in the same task.

    Raises:
        RuntimeError: From entering it a second time, from leaving it while it is not open, and from leaving it in
            another task, when what is left in it is closed.
        WrongLoopError: From leaving it on another loop. It stays open.

    Thread: one loop's.
    """

    def __init__(self, context_id: str, sweep: float, tally: Tally) -> None:
        self.context_id = context_id
        self._sweep = sweep
        self._tally = tally
        self._enclosure: Enclosure | None = None
        self._is_left = False
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[object] | None = None
        self._uncover: Callable[[], None]
        self._place: WorkPlace
        self._started: float

    async def __aenter__(self) -> Self:
        if self._enclosure is not None:
            raise RuntimeError("a block is entered once; call enclosed() again")
        self._loop = asyncio.get_running_loop()
        home = loop_affinity(self._loop)
        self._place = WorkPlace(
            self.context_id, Isolation.CONTEXT.value, "a block", get_ident(), os.getpid(), home, home
        )
        self._task = asyncio.current_task()
        self._enclosure = Enclosure(self.context_id, Isolation.CONTEXT.value, self._sweep, exclusive=False)
        self._uncover = self._enclosure.cover("a block")
        self._started = time.monotonic()
        emit(IsolatedRunStarted(self._place))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if self._enclosure is None or self._is_left:
            raise RuntimeError(f"block {self.context_id!r} is not open: async with enclosed(...): ...")
        if (loop := asyncio.get_running_loop()) is not self._loop:
            raise WrongLoopError(
                f"block {self.context_id!r}",
                str(self._place.loop_before),
                str(loop_affinity(loop)),
                ONE_PER_LOOP,
            )
        self._is_left = True
        is_elsewhere = asyncio.current_task() is not self._task
        if not is_elsewhere:  # a context's variables are put back in that context only
            self._uncover()
        try:
            await self._enclosure.aclose()
            if is_elsewhere:
                raise RuntimeError(
                    f"block {self.context_id!r} was left in another task than the one that entered it; "
                    "enter and leave it in one task. What was left in it is closed"
                )
        finally:
            self._tally.count_leftovers(self._enclosure.signs)
            failure = None if kind is None else kind.__name__
            emit(IsolatedRunEnded(self._place, time.monotonic() - self._started, failure))
