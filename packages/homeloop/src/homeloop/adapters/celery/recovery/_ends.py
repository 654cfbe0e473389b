"""The ends of runs, and how the store is told of them."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Self

from celery.utils.log import get_logger

from homeloop.adapters.celery._checkpoints import RecoveryContext
from homeloop.adapters.celery.recovery._bounds import bounded
from homeloop.adapters.celery.recovery._records import RecoveryStore, Terms

logger = get_logger(__name__)

_LAST = 3.0
"""Seconds for the last try: a runtime that closes has five for everything that it closes."""

Tell = Callable[[RecoveryStore, str, str, int], Coroutine[Any, Any, object]]
"""Tells a store of the end of a run: of an app's task, held with a fence."""


class Ends:
    """
    Tells the store how the runs of one loop have ended, as long as it takes.

    To be opened on the loop after the store was used there: what is opened last is closed first, and when this is
    closed it tries once more.
    """

    def __init__(self, store: RecoveryStore, terms: Terms) -> None:
        self._store = store
        self._terms = terms
        self._untold: dict[RecoveryContext, Tell] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._is_slow = False  # the last time it took too long

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        telling = [*self._telling]  # unless the runtime has cancelled them, as it closes
        for task in telling:
            task.cancel()
        if telling:
            await asyncio.wait(telling)
        last = min(_LAST, self._terms.bound)
        await asyncio.gather(*(self._try(run, tell, last) for run, tell in self._untold.items()))

    async def tell(self, run: RecoveryContext, tell: Tell) -> None:
        """
        Tell the store of the end of a run, whose outcome is known to Celery.

        It returns when the store knows. If that takes longer than the bound it returns, and so do all the next
        ones at once until the store answers again: who calls is a thread that tasks wait for.
        """
        self._untold[run] = tell
        telling = asyncio.get_running_loop().create_task(self._insist(run, tell), context=Context())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        if not self._is_slow:
            await asyncio.wait({telling}, timeout=self._terms.bound)
            self._is_slow = not telling.done()

    async def _insist(self, run: RecoveryContext, tell: Tell) -> None:
        while not await self._try(run, tell, self._terms.bound):  # noqa: ASYNC110  # the store tells nobody when it is back
            await asyncio.sleep(self._terms.beat)
        del self._untold[run]
        self._is_slow = False

    async def _try(self, run: RecoveryContext, tell: Tell, seconds: float) -> bool:
        told = tell(self._store, self._terms.app, run.task_id, run.fence)
        try:
            await bounded(told, seconds, "recovery's store")
        except Exception:
            logger.exception("recovery was not told of the end of task %s yet: it may run again", run.task_id)
            return False
        return True
