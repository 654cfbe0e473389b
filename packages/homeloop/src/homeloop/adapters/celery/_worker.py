"""The worker this process belongs to: what its pool is, and which time limits are ours to enforce there."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

from typing import Any, NamedTuple

from billiard.process import current_process
from celery import signals
from celery.concurrency import get_implementation

from homeloop import LoopRuntime, default_runtime

KILL_MARGIN = 1.0
"""Seconds after the grace when a prefork pool kills a child that did not end its task by itself."""


class Limits(NamedTuple):
    """Seconds after which a task is to be ended, softly and for good; None for never."""

    soft: float | None
    hard: float | None


class _Worker:
    """What a worker was started with. Children of a prefork pool inherit it."""

    limits = Limits(None, None)  # of the command line and the settings
    pool: Any = None  # its class

    def __init__(self) -> None:
        self._origins: frozenset[str] = frozenset()  # asked for each task: modules of its class and of its bases

    def note(self, sender: Any, **_: Any) -> None:
        self.limits = Limits(sender.soft_time_limit, sender.time_limit)
        self.pool = get_implementation(sender.pool_cls)
        self._origins = frozenset(each.__module__ for each in self.pool.__mro__)

    def has_pool(self, *names: str) -> bool:
        """Tell whether its pool is one of Celery's, or derived from it, without importing that."""
        return any(f"celery.concurrency.{name}" in self._origins for name in names)


_worker = _Worker()
signals.worker_init.connect(_worker.note, weak=False, dispatch_uid="homeloop.note")


def is_pool_child() -> bool:
    """Tell whether this process is a child of a prefork pool."""
    return bool(current_process().name != "MainProcess")


def is_prefork() -> bool:
    """Tell whether tasks run in children, not in the worker's own process."""
    return _worker.has_pool("prefork")


def is_green() -> bool:
    """Tell whether tasks run in greenlets of Celery's."""
    return _worker.has_pool("gevent", "eventlet")


def is_stock_in_process() -> bool:
    """Tell whether tasks run in this process, on threads or greenlets that one of Celery's own pools makes."""
    return _worker.has_pool("thread", "solo", "gevent", "eventlet")


def own_limits(task: Any, request: Any) -> Limits:
    """
    Return the limits that are ours to enforce for a request, so that each reaches the coroutine on every pool.

    Prefork sends the soft one as a signal; elsewhere there is none, and a hard one on gevent alone. The hard one
    is ours on every pool: see `limits_of_pool`.
    """
    if request.called_directly or request.is_eager:
        return Limits(None, None)
    hard, soft = request.timelimit or (None, None)
    return Limits(
        None if is_pool_child() else soft or task.soft_time_limit or _worker.limits.soft,
        hard or task.time_limit or _worker.limits.hard,
    )


def hard_limit_of(task: Any, request: Any) -> float | None:
    """Return the seconds after which a request is ended for good, whoever enforces that; None for never."""
    hard: float | None = (request.timelimit or (None, None))[0] or task.time_limit or _worker.limits.hard
    return hard


def limits_of_pool(task: Any, limits: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    """
    Return the limits (hard, soft) a pool is to be told for a request.

    Prefork's hard limit kills a child at once, without any clean-up; gevent's ends the greenlet that waits, and
    nobody learns what blocks the loop. Ours is to come first, so the pool's is postponed: it ends the child, or
    the greenlet, only if the coroutine did not end within the grace.
    """
    hard, soft = limits
    hard = hard or task.time_limit or _worker.limits.hard
    if not hard or not task.is_async or not _worker.has_pool("prefork", "gevent"):
        return limits
    return hard + grace_of(task.runtime) + KILL_MARGIN, soft


def grace_of(runtime: LoopRuntime | None) -> float:
    """Return the seconds a cancelled coroutine has to clean up on a task's runtime."""
    return (runtime or default_runtime()).grace
