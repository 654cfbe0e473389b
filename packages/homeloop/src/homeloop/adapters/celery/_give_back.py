"""What a worker gives back to Redis when it has connected anew: messages of a connection that broke."""

# pyright: basic
# (Celery and kombu ship no types: strict mode would complain of every value that comes from them.)

import sys
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

logger = get_logger(__name__)


class GiveBack(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """
    A step of the worker's consumer.

    kombu gives back what is not acknowledged when a connection closes. If Redis is away it cannot, and nobody
    does until the visibility timeout is over: hours, as it must be longer than any task.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._before: Any = None  # kombu's notes of what the last connection had delivered

    def start(self, parent: Any) -> None:
        """Give back what the connection before could not, now that there is another one."""
        redis: Any = sys.modules.get("kombu.transport.redis")
        notes: Any = getattr(parent.task_consumer.channel, "qos", None)
        if redis is None or not isinstance(notes, redis.QoS):
            return
        before = self._before
        tags = [] if before is None else list(before._delivered)
        for tag in tags:
            notes.restore_by_tag(tag)  # nothing, if somebody has done so
        self._before = notes  # now: if the connection is lost in between, it is for the next one
        if tags:
            logger.warning("%d messages of the connection that was lost are given back to Redis", len(tags))
