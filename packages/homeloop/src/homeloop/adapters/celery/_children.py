"""What becomes of a prefork pool's children, told by those that take their places."""

# pyright: basic
# (Celery and billiard ship no types: strict mode would complain of every value that comes from them.)

from typing import Any

from billiard.pool import EX_RECYCLE
from celery import bootsteps, signals
from celery.utils.log import get_logger

from homeloop import tell_worker_ended
from homeloop.adapters.celery._worker import is_prefork

logger = get_logger(__name__)

_POOL = "Celery's prefork pool"


class TellOfChildren(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """
    A step of the worker's consumer.

    The parent of a prefork pool knows which child has ended and why, but watches no loops, so nobody asks it for
    its health. It writes that down, and the next child that it forks, which takes the place, tells it as its own.

    Source: ``Pool._join_exited_workers`` and ``_create_worker_process`` of billiard 4.2 and 4.3.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Look after the children that end from now on. After a reconnect that is so already."""
        if not is_prefork():
            return
        pool = parent.pool._pool
        join = getattr(pool, "_join_exited_workers", None)
        fork = getattr(pool, "_create_worker_process", None)
        if join is None or fork is None:
            logger.warning("billiard keeps its children where homeloop does not know: health counts none that end")
        elif not isinstance(join, _Joining):
            pool._join_exited_workers, pool._create_worker_process = _Joining(pool, join), _forking(fork)


_ended: list[tuple[int, int | None, str | None]] = []
"""Children that ended and that no other has told of yet: pid, exit code, and why it was told to end."""


class _Joining:
    """Joins the children that have ended, and writes them down."""

    def __init__(self, pool: Any, join: Any) -> None:
        self._pool = pool
        self._join = join

    def __call__(self, shutdown: bool = False) -> Any:
        before = list(self._pool._pool)
        try:
            return self._join(shutdown)
        finally:
            if not shutdown:  # else nobody takes their places
                _ended.extend(_told(each) for each in before if each not in self._pool._pool)


def _forking(fork: Any) -> Any:
    def forking(index: int) -> Any:
        worker = fork(index)
        _ended.clear()  # told by the child, which has a copy
        return worker

    return forking


def _told(child: Any) -> tuple[int, int | None, str | None]:
    exitcode = child.exitcode
    if exitcode == EX_RECYCLE:
        reason = "recycled"  # worker_max_tasks_per_child, worker_max_memory_per_child
    elif exitcode == 0 or getattr(child, "_controlled_termination", False):
        reason = "ended"  # a revoked task's, or the pool has shrunk
    else:
        reason = None
    return child.pid, exitcode, reason


def _tell(**_: Any) -> None:
    for pid, exitcode, reason in _ended:
        tell_worker_ended(_POOL, pid, exitcode, reason)
    _ended.clear()


signals.worker_process_init.connect(_tell, weak=False, dispatch_uid="homeloop.children")
