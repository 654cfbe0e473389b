"""A worker's request for a task: what Celery's own leaves undone on the pools within the worker's process."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import sys
from typing import Any

from billiard.common import TERM_SIGNAME
from celery import platforms
from celery.exceptions import TaskRevokedError
from celery.worker import request

from homeloop.adapters.celery._handles import Handle, handles
from homeloop.adapters.celery._worker import is_stock_in_process, limits_of_pool


class Request(request.Request):  # type: ignore[misc]  # Celery ships no types
    """
    Celery's request, with four promises kept on every pool.

    A task that was revoked while it waited for a place in the pool never begins. Termination and a
    cold shutdown cancel the coroutine, also where the pool could not end a job (threads, solo). What a cold
    shutdown has cancelled is not acknowledged, so an ``acks_late`` task is delivered again. And a
    hard limit ends the coroutine before a prefork pool kills its process.
    """

    time_limits: Any
    _handle: Handle | None = None  # of an async task that has begun in this process

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self.time_limits = limits_of_pool(self.task, self.time_limits)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """A place in the pool is free. Thread, or greenlet: the one that would run the task."""
        if is_stock_in_process():
            if self.revoked():
                raise _end_of_job(self.id)
            if self.task.is_async:
                self._handle = handles[self.id] = Handle()
        super().on_accepted(pid, time_accepted)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the task for good."""
        if self._handle is None:
            super().terminate(pool, signal)
        else:
            self._handle.terminate()
            self._announce_revoked("terminated", True, platforms.signals.signum(signal or TERM_SIGNAME), False)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        """End the task because its worker ends, or has lost its broker. Celery has an ``emit_retry`` since 5.6."""
        if self._handle is None:
            super().cancel(pool, signal, **options)
        else:
            self._already_cancelled = True  # before its end, which may come at once and would acknowledge it
            self._handle.terminate()
            self._announce_cancelled(**options)

    def acknowledge(self) -> None:
        """Tell the broker that the task is done with; not of one that was cancelled."""
        if not self._already_cancelled:
            super().acknowledge()


def _end_of_job(task_id: str) -> BaseException:
    """Return what ends a job before its task begins: a pool of greenlets takes nothing else quietly."""
    greenlet: Any = sys.modules.get("greenlet")
    if greenlet is None:
        return TaskRevokedError(task_id)  # type: ignore[no-any-return]
    return greenlet.GreenletExit()  # type: ignore[no-any-return]
