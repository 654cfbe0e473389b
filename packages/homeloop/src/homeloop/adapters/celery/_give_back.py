"""What a worker gives back to Redis: messages of a connection that broke, and of workers that were killed."""

# pyright: basic
# (Celery and kombu ship no types: strict mode would complain of every value that comes from them.)

import sys
import time
from collections.abc import Mapping
from typing import Any

import kombu
from celery import bootsteps
from celery.utils.log import get_logger
from kombu.utils.encoding import bytes_to_str

from homeloop.adapters.celery._worker import is_green

logger = get_logger(__name__)

_INTERVAL = 10.0
"""Seconds between looks for lost messages, unless kombu's option says otherwise: its own default."""


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
        self._lost_at: float | None = (
            None  # seconds since the epoch, as kombu's index has them; None while it lasts
        )

    def stop(self, parent: Any) -> None:
        """Note when the connection was lost, or was about to close."""
        if self._lost_at is None:
            self._lost_at = time.time()

    def start(self, parent: Any) -> None:
        """Give back what the connection before could not, now that there is another one."""
        notes = _redis_notes(parent)
        if notes is None:
            return
        if _tags(notes) is None:
            logger.warning(
                "kombu %s keeps its notes of unacknowledged messages where homeloop does not know (5.5 to 5.7 "
                "are known): when Redis goes away, what this worker had is delivered again after the visibility "
                "timeout, not at once; upgrade homeloop",
                kombu.__version__,
            )
            return
        tags = [] if self._before is None else _tags(self._before) or []
        if tags and self._lost_at is not None:
            others = _taken_since(notes, self._lost_at)
            tags = [tag for tag in tags if tag not in others]
        for tag in tags:
            notes.restore_by_tag(tag)  # nothing, if somebody has done so
        self._before = notes  # now: if the connection is lost in between, it is for the next one
        self._lost_at = None
        if tags:
            logger.warning("%d messages of the connection that was lost are given back to Redis", len(tags))


class LookForLost(bootsteps.StartStopStep):  # type: ignore[misc]
    """
    A step of the consumer in a worker whose tasks are greenlets.

    What a killed worker had comes back when another one looks for it, after the visibility timeout. A timer of
    kombu's hub has the others look. Here there is no hub, and kombu's consumer looks when it has waited for news
    in vain, which it never does: Redis tells it before that there are none. So the worker's timer has it look.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._transport: Any = None  # kombu's, of the present connection

    def include_if(self, parent: Any) -> bool:
        """Tell whether this worker needs it."""
        return is_green()

    def start(self, parent: Any) -> None:
        """Have the timer look through this connection now and then."""
        notes = _redis_notes(parent)
        if notes is None:
            return
        self._transport = notes.channel.connection
        # For each connection anew: Celery before 5.7 clears the timer when one is lost.
        self._look_later(parent.timer, self._transport)

    def stop(self, parent: Any) -> None:
        """Look no more through this connection, which is lost or about to close."""
        self._transport = None

    def _look_later(self, timer: Any, transport: Any) -> None:
        seconds = transport.client.transport_options.get("unacked_restore_interval", _INTERVAL)
        timer.call_after(seconds if seconds > 0 else _INTERVAL, self._look, (timer, transport))

    def _look(self, timer: Any, transport: Any) -> None:
        """Have kombu give back what is lost, as its hub would. Greenlet: one of the timer's own for each call."""
        if transport is not self._transport:
            return
        self._look_later(timer, transport)  # first: whatever becomes of this look, there is a next one
        try:
            transport.cycle.maybe_restore_messages()
        except (*transport.connection_errors, *transport.channel_errors, ValueError):
            # If it is the connection, the consumer finds that out, too, and says so. redis-py raises ValueError
            # when another greenlet closes the connection meanwhile, as the consumer then does.
            logger.debug("Redis could not be asked for lost messages; once more in a while", exc_info=True)


def _redis_notes(parent: Any) -> Any:
    """Return kombu's notes of what a consumer's connection has delivered; None if it is none to Redis."""
    redis: Any = sys.modules.get("kombu.transport.redis")
    notes: Any = getattr(parent.task_consumer.channel, "qos", None)
    return notes if redis is not None and isinstance(notes, redis.QoS) else None


def _taken_since(notes: Any, moment: float) -> set[str]:
    """Return what is noted as delivered since then, by the clocks of who noted it: others have it now."""
    from redis import Redis  # not everybody has it

    channel = notes.channel
    with channel.conn_or_acquire() as client:  # which does not prefix the keys of this command
        tags: Any = Redis(connection_pool=client.connection_pool).zrangebyscore(
            channel.global_keyprefix + notes.unacked_index_key, moment, "+inf"
        )
    return {bytes_to_str(tag) for tag in tags}


def _tags(notes: Any) -> list[str] | None:
    """Return the tags of what was delivered and is not acknowledged; None if this kombu does not tell."""
    delivered = getattr(notes, "_delivered", None)  # kombu has no public name for them
    return list(delivered) if isinstance(delivered, Mapping) else None
