"""
kombu's Redis transport, whose messages are received and acknowledged many at a time.

kombu fetches each message by a ``BRPOP``, notes it as unacknowledged by a transaction, and takes it off by
another: three round trips a task, on the thread that the worker's consumer has. Here one script hands over what
waits in the queues, as much as the prefetch limit has room for; ``BRPOP`` waits only for what comes later. And
acknowledgements are sent together, each time before the worker's hub waits for news.

What kombu promises stays, and more: the script takes a message off its queue and notes it in one step, where kombu
leaves a moment between the two. Acknowledgements that could not be sent are tried again when the channel closes.
"""

# pyright: basic
# (kombu ships no types: strict mode would complain of every value that comes from it.)

from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from homeloop.adapters.celery.pool._redis_take import MOST, MOST_BYTES, Request, Taker, is_for_good

logger = get_logger(__name__)

_ROUNDS = 10
"""Batches received in a row at most, for the same reason as there is a limit for each. A guess."""


class QoS(redis.QoS):  # type: ignore[misc]  # kombu ships no types
    """What a channel has delivered and not acknowledged. Thread: the hub's."""

    _delivered: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._acknowledged: deque[str] = deque()  # and not sent
        self._noted: set[str] = set()  # with Redis, and not delivered

    def note_taken(self, tags: Sequence[str]) -> None:
        """Count what was taken, and is noted: what is not delivered is given back when the channel closes."""
        self._noted.update(tags)
        for tag in tags:
            self._delivered[tag] = None

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag in self._noted:
            self._noted.discard(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            try:
                super().append(message, delivery_tag)
            except self.channel.connection_errors:
                super().append(message, delivery_tag)  # on another one: nobody else has this message

    def ack(self, delivery_tag: str) -> None:
        if self.channel.is_polled:
            self._acknowledged.append(delivery_tag)
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.send_acks()  # those that could not be sent when the channel closed
            super().ack(delivery_tag)

    def send_acks(self) -> None:
        """Send the acknowledgements; what cannot be sent is kept."""
        tags = list(self._acknowledged)
        if tags:
            with self.pipe_or_acquire() as pipe:
                pipe.zrem(self.unacked_index_key, *tags).hdel(self.unacked_key, *tags).execute()
            for _ in tags:
                self._acknowledged.popleft()

    def restore_unacked_once(self, *args: Any, **options: Any) -> None:
        errors = (*self.channel.connection_errors, ResponseError)
        try:
            self.send_acks()
        except errors as error:
            logger.critical("couldn't ack %r, reason: %r", list(self._acknowledged), error)
        try:
            self.note_taken(self.channel.recall())
        except errors as error:
            logger.critical("couldn't give back what the last answer had, reason: %r", error)
        super().restore_unacked_once(*args, **options)


class Channel(redis.Channel):  # type: ignore[misc]  # kombu ships no types
    """A channel that receives what waits, not one message of it. Thread: the hub's."""

    QoS = QoS
    qos: Any  # of that class, made when it is asked for
    _qos: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        self._kept: Any = None
        self._takes = False
        self._without_ack: set[str] = set()
        super().__init__(*args, **options)
        # The script notes what it takes, and takes the queues in turn: who wants it otherwise gets kombu's way.
        self._takes = bool(self.ack_emulation and self.queue_order_strategy == "round_robin")
        unacked, index = (self.global_keyprefix + key for key in (self.unacked_key, self.unacked_index_key))
        self._taker = Taker(unacked, index, self.visibility_timeout)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Any:
        """
        Yield a client: the same one each time, as making one costs more than a command.

        When the channel closes, and when it is closed, too: there is nothing then to make another one of.

        Raises:
            redis.exceptions.ConnectionError: It is closed, and has never had a client.
        """
        if client is None:
            client = self._kept
            if client is None or not (self._closing or client.connection_pool is self.pool):
                if self.connection is None or self.connection.client is None:
                    raise RedisConnectionError("the channel is closed")
                client = self._kept = self._create_client()
        yield client

    @property
    def is_polled(self) -> bool:
        """Whether a hub will have the acknowledgements sent."""
        return not self._closing and self.connection is not None and self.connection.cycle.has_hub

    def close(self) -> None:
        """Close as kombu does, but to the end: also if the connection is dead that it first waits on."""
        try:
            super().close()
        except self.connection_errors:
            if self.closed:
                raise
            super().close()  # and does not wait this time
        finally:
            if self._kept is not None:
                self._kept.connection_pool.disconnect()

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        if no_ack:
            self._without_ack.add(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def send_acks(self) -> None:
        """Send what was acknowledged since the last time."""
        if isinstance(self._qos, QoS):  # not without ack_emulation
            self._qos.send_acks()

    def read_waiting(self) -> None:
        """Receive what waits; not while Redis is asked to wait for a message, which has found none then."""
        if self._takes and not self._in_poll and self.is_polled:
            for _ in range(_ROUNDS):
                if not self._read_more():
                    return

    def _read_more(self) -> bool:
        """Receive some messages; tell whether there may be more, and room for them."""
        if "can_consume" in vars(self.qos):  # Celery's worker_disable_prefetch asks each time
            return False
        room = self.qos.can_consume_max_estimate()
        most = MOST if room is None else min(room, MOST)
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not most or not queues or not self._without_ack.isdisjoint(queues):
            return False
        lists = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        request = Request([self.global_keyprefix + key for key in lists], len(queues), most)
        try:
            with self.conn_or_acquire() as client:
                found = self._taker.take(client.connection_pool, request)
        except ResponseError as error:
            self._takes = not is_for_good(error)
            logger.warning("messages are received one by one, as Redis refuses the script for more: %s", error)
            return False
        messages = [(queues[number], loads(bytes_to_str(item))) for number, item in found]
        self.qos.note_taken([_tag(message) for _, message in messages])
        if messages:
            self._queue_cycle.rotate(messages[-1][0])  # the others are first next time
        for queue, message in messages:
            if self._closing:  # by who has received the last one; the others are given back
                return False
            self.connection._deliver(message, queue)
        return len(found) == most or sum(len(item) for _, item in found) >= MOST_BYTES

    def recall(self) -> list[str]:
        """Return the tags of what was taken and never came here, as connections were lost."""
        if not self._taker.is_unanswered:
            return []
        with self.conn_or_acquire() as client:
            return [_tag(loads(bytes_to_str(item))) for _, item in self._taker.recall(client.connection_pool)]


def _tag(message: Any) -> str:
    return message["properties"]["delivery_tag"]  # type: ignore[no-any-return]


class Poller(redis.MultiChannelPoller):  # type: ignore[misc]  # kombu ships no types
    """
    Waits for news on all channels.

    Attributes:
        has_hub: Whether a hub calls `on_poll_start` again and again; else nobody knows when acknowledgements
            would be sent.
    """

    has_hub = False

    def on_poll_start(self) -> None:
        for channel in list(self._channels):
            channel.send_acks()
            channel.read_waiting()
        super().on_poll_start()


class Transport(redis.Transport):  # type: ignore[misc]  # kombu ships no types
    """What a worker's connection to Redis is made of."""

    Channel = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.cycle.has_hub = True
        super().register_with_event_loop(connection, loop)
