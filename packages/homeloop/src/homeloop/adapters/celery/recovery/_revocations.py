"""What a prefork worker's parent tells recovery: which tasks are revoked."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable


class Revocations:
    """
    Ends revoked tasks on a thread that lives as long as there are some: the parent's own must not wait.

    It has no runtime, as it will fork.

    Args:
        end: Ends a task; does not raise, and has a bound.

    Thread: any of the parent's.
    """

    def __init__(self, end: Callable[[str], Awaitable[None]]) -> None:
        self._end = end
        self._task_ids: deque[str] = deque()
        self._changing = threading.Lock()
        self._is_at_work = False
        self._thread: threading.Thread | None = None

    def add(self, task_id: str) -> None:
        """End a task soon."""
        with self._changing:
            self._task_ids.append(task_id)
            if self._is_at_work:
                return
            self._is_at_work = True
            self._thread = threading.Thread(target=self._work, name="homeloop revocations", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Wait until all are ended, at most so many seconds."""
        with self._changing:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _work(self) -> None:
        while task_ids := self._next():
            asyncio.run(self._end_all(task_ids))

    def _next(self) -> list[str]:
        with self._changing:
            task_ids = [*self._task_ids]
            self._task_ids.clear()
            self._is_at_work = bool(task_ids)
        return task_ids

    async def _end_all(self, task_ids: list[str]) -> None:
        await asyncio.gather(*map(self._end, task_ids))
