"""What recovery sends of its own accord: tasks that were cut off, and the end of those that are given up."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from homeloop.adapters.celery.recovery._bounds import bounded
from homeloop.adapters.celery.recovery._messages import Messages
from homeloop.adapters.celery.recovery._records import LostTask, RecoveryStore, Terms
from homeloop.errors import TaskLostError

logger = get_logger(__name__)


class Outbox:
    """
    Sends what the store has queued, and tells what it has given up. Serves one loop.

    Each takes a thread. One that the broker, or the result backend, keeps longer than the bound is left, and until
    it is back there is no other: threads do not pile up while a broker hangs.

    Args:
        store: The store.
        messages: Opens and sends messages.
        terms: Of the app.
    """

    def __init__(self, store: RecoveryStore, messages: Messages, terms: Terms) -> None:
        self._store = store
        self._messages = messages
        self._terms = terms
        self._kept: asyncio.Task[None] | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether a thread has not come back."""
        return self._kept is not None and not self._kept.done()

    async def send(self, lost: LostTask) -> None:
        """Send a task again; if that cannot be, it is due at once."""
        logger.warning("task %s[%s] was cut off; it is sent again", lost.name, lost.task_id)
        delay = self._terms.resend_after
        try:
            await self._on_thread(self._messages.send, lost.name, lost.task_id, lost.message)
        except Exception:
            logger.exception("task %s[%s] cannot be sent again yet", lost.name, lost.task_id)
            delay = 0.0
        # Does nothing if the task was claimed meanwhile, which has raised the fence.
        released = self._store.release(self._terms.app, lost.task_id, lost.fence, delay)
        await bounded(released, self._terms.bound, "recovery's store")

    async def bury(self, lost: LostTask) -> None:
        """Tell those who wait for a task that it is given up; if that cannot be, a sweep finds it again."""
        error = TaskLostError(lost.task_id, lost.losses)
        logger.error("task %s[%s] is given up: %s", lost.name, lost.task_id, error)
        try:
            await self._on_thread(self._messages.bury, lost.name, lost.task_id, lost.message, error)
        except Exception:
            logger.exception("the result of task %s[%s] cannot be stored yet", lost.name, lost.task_id)
        else:
            told = self._store.tell(self._terms.app, lost.task_id, lost.fence)
            await bounded(told, self._terms.bound, "recovery's store")

    async def _on_thread(self, fn: Callable[..., None], *args: Any) -> None:
        if self.is_stuck:
            raise TimeoutError("the one before it is still on its way")
        kept = self._kept = asyncio.create_task(asyncio.to_thread(fn, *args))
        kept.add_done_callback(_retrieve)
        await asyncio.wait({kept}, timeout=self._terms.bound)
        if not kept.done():
            raise TimeoutError(f"neither sent nor refused for {self._terms.bound:g} s")
        kept.result()


def _retrieve(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()  # or asyncio would complain of one that nobody waits for any more
