"""A kombu transport over a `broker_folder`: ``safefs:///absolute/folder``, shared by processes, safe to kill.

Call `register` once per process before Celery or kombu sees such an address. What differs from kombu's own
``filesystem`` transport, and what was measured, is in ``docs/decisions/002-filesystem-broker.md``.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any
from urllib.parse import quote

from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps, loads

from workflow_service.gateways.broker_folder import Binding, Leased, Owner, Wake, join

__all__ = ("Channel", "QoS", "SCHEME", "Transport", "broker_url", "register")

# kombu's virtual classes carry no annotations: what comes from them is Any, and a base class's `return True` is no
# promise to return nothing else.
# pyright: reportIncompatibleMethodOverride=false
# mypy: allow-untyped-calls

logger = logging.getLogger(__name__)

SCHEME = "safefs"

# Seconds between looks for dead processes, and for messages whose producer died before it could wake us; bounds
# how long a dead worker's messages wait. What a look costs is in the decision note.
_LOOK_INTERVAL = 0.25

# Messages handed out before the hub may serve its other readers. A guess; Celery's prefetch limit is mostly lower.
_BURST = 16


def register() -> None:
    """Make ``safefs://`` known to kombu. Calling it again is allowed."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def broker_url(folder: Path) -> str:
    """Return the address of the broker in ``folder``; relative paths count from the working directory."""
    return f"{SCHEME}://{quote(str(folder.absolute()))}"


class QoS(virtual.QoS):
    """Unacknowledged messages of a channel; each is a lease, and ends only where the lease ends."""

    channel: "Channel"

    def ack(self, delivery_tag: str) -> None:
        """Delete the message. Thread: any."""
        self.channel.settle(delivery_tag)
        self._end(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Delete the message, or put it back in its old place. Thread: any."""
        if requeue:
            self.channel.give_back(delivery_tag)
        else:
            self.channel.settle(delivery_tag)
        self._end(delivery_tag)

    def _end(self, delivery_tag: str) -> None:
        super().ack(delivery_tag)
        self.channel.look_again()  # the limit may allow one more now, and the consumer may be asleep


class Channel(virtual.Channel):
    """A kombu channel whose queues are folders."""

    QoS = QoS
    supports_fanout = True
    connection: "Transport | None"

    def __init__(self, connection: "Transport", **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._transport = connection  # close() forgets `connection`; a late acknowledgement still needs it
        self._no_ack: set[str] = set()

    def settle(self, delivery_tag: str) -> None:
        """Delete a leased message; one that was given back meanwhile will run again, and the log says so."""
        with self._transport.naming_folder():
            if not self._transport.owner_of_leases.settle(delivery_tag):
                logger.warning("message %s is no longer held here; it will be delivered again", delivery_tag)

    def give_back(self, delivery_tag: str) -> None:
        """Put a leased message back; nothing happens if it is no longer held here."""
        with self._transport.naming_folder():
            self._transport.owner_of_leases.give_back(delivery_tag)

    def look_again(self) -> None:
        """Let this connection's consumer look for messages."""
        self._transport.look_again()

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> None:
        """Start consuming a queue."""
        if no_ack:
            self._no_ack.add(queue)
        super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        self.look_again()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop consuming. What was delivered stays leased."""
        self._no_ack.discard(self._tag_to_queue.get(consumer_tag))
        super().basic_cancel(consumer_tag)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return the oldest message, or None."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if no_ack and message is not None and queue not in self._no_ack:
            self.settle(str(message.delivery_tag))
        return message

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Limit the unacknowledged messages to ``prefetch_count``; 0 is no limit."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.look_again()

    def queue_unbind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Remove a binding, for all processes."""
        exchange = exchange or "amq.direct"
        self.state.binding_delete(queue, exchange, routing_key)
        meta = self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)
        with self._transport.naming_folder() as owner:
            owner.unbind(exchange, _binding(*meta))

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue with its messages and bindings, whichever process bound it."""
        with self._transport.naming_folder() as owner:
            if if_empty and owner.size(queue):
                return
            owner.delete(queue)
        self.state.queue_bindings_delete(queue)

    def get_table(self, exchange: str) -> list[tuple[str, str | None, str]]:
        """Return what is bound to an exchange, by any process."""
        with self._transport.naming_folder() as owner:
            return [(found.routing_key, found.pattern, found.queue) for found in owner.bindings(exchange)]

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        with self._transport.naming_folder() as owner:
            owner.bind(exchange, _binding(routing_key, pattern, queue))

    def _new_queue(self, queue: str, auto_delete: bool = False, exclusive: bool = False, **kwargs: Any) -> None:
        with self._transport.naming_folder() as owner:
            owner.declare(queue, transient=auto_delete or exclusive)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        with self._transport.naming_folder() as owner:
            return owner.has(queue)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        with self._transport.naming_folder() as owner:
            owner.put(queue, dumps(message).encode())

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        for queue in {queue for _, _, queue in self.get_table(exchange)}:
            self._put(queue, message)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        with self._transport.naming_folder() as owner:
            while (leased := owner.take(queue)) is not None:
                try:
                    payload = self._payload(leased)
                except (OSError, MemoryError):  # this process's trouble, not the message's
                    owner.give_back(leased.tag)
                    raise
                except Exception as error:  # whatever it is that reading raises, one file must not block a queue
                    owner.bury(leased.tag, f"{type(error).__name__}: {error}")
                    continue
                if queue in self._no_ack:
                    owner.settle(leased.tag)
                return payload
        raise Empty

    def _payload(self, leased: Leased) -> dict[str, Any]:
        if leased.data is None:
            raise ValueError("not a file with a message's name")
        payload: dict[str, Any] = loads(leased.data.decode())
        properties = payload["properties"]
        self.decode_body(payload.get("body"), properties.get("body_encoding"))
        # The tag the producer chose is the same in each queue a topic reached; the lease's name is unique.
        properties["delivery_tag"] = leased.tag
        properties["delivery_info"]["redelivered"] = leased.redelivered
        if leased.redelivered:
            payload["headers"] = {**(payload.get("headers") or {}), "redelivered": True}
        return payload

    def _restore(self, message: Any) -> None:
        self.give_back(message.delivery_tag)

    def _purge(self, queue: str) -> int:
        with self._transport.naming_folder() as owner:
            return owner.purge(queue)

    def _size(self, queue: str) -> int:
        with self._transport.naming_folder() as owner:
            return owner.size(queue)


class Transport(virtual.Transport):
    """A connection to a broker folder: polled by kombu's hub where there is one, else by `drain_events`."""

    Channel = Channel
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset({"direct", "topic", "fanout"})
    )
    driver_type = SCHEME
    driver_name = SCHEME
    connection_errors = (*virtual.Transport.connection_errors, OperationalError)  # type: ignore[assignment]
    cycle: Any

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.root = _folder(client)
        self._owner: Owner | None = None
        self._wake: Wake | None = None
        self._looked = 0.0  # monotonic
        self._hub: Any = None
        self._timer: Any = None

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """There is no host to fall back to; kombu would warn about one."""
        return {}

    @property
    def owner_of_leases(self) -> Owner:
        """The owner that took the messages now out; in a forked child that is the parent's, which does nothing."""
        if self._owner is None:
            raise OperationalError(f"the connection to broker folder {str(self.root)!r} is closed")
        return self._owner

    def driver_version(self) -> str:
        """Return this transport's version: it has none of its own."""
        return "N/A"

    def establish_connection(self) -> "Transport":
        """Join the folder and give back what dead processes held.

        Raises:
            OperationalError: The folder cannot be made, written, or belongs to another user, or is no broker's.
        """
        with self.naming_folder() as owner:
            owner.recover_dead()
        connection: Transport = super().establish_connection()
        return connection

    def close_connection(self, connection: "Transport") -> None:
        """Give back what is unacknowledged and leave the folder."""
        try:
            super().close_connection(connection)
        finally:
            self._leave_hub()
            owner, self._owner = self._owner, None
            wake, self._wake = self._wake, None
            if owner is not None:
                if wake is not None:
                    owner.close_wake(wake)
                owner.leave()

    def drain_events(self, connection: "Transport", timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message, waiting up to ``timeout`` seconds for it; None waits for ever.

        Raises:
            TimeoutError: None came.
            OperationalError: The folder cannot be read or written.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            wake = self._listening()
            wake.clear()  # before looking: what comes later sets it again
            self._recover_if_due()
            with contextlib.suppress(Empty):
                self.cycle.get(self._deliver, timeout=timeout)
                return
            remaining = _LOOK_INTERVAL if deadline is None else deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("no message")
            wake.wait(min(remaining, _LOOK_INTERVAL))

    def register_with_event_loop(self, connection: "Transport", loop: Any) -> None:
        """Let kombu's hub deliver messages as they come."""
        self._leave_hub()
        self._hub = loop
        loop.add_reader(self._listening().fd, self._deliver_burst)
        self._timer = loop.call_repeatedly(_LOOK_INTERVAL, self._look)
        self.look_again()

    def look_again(self) -> None:
        """Make whoever waits on this connection look for messages. Thread: any."""
        wake = self._wake  # another thread may be closing the connection
        if wake is not None:
            wake.set()

    @contextlib.contextmanager
    def naming_folder(self) -> Iterator[Owner]:
        """Yield this process's owner; an OSError of the body says which folder it is about."""
        try:
            yield self._present()
        except OSError as error:
            if isinstance(error, OperationalError):
                raise
            place = f" at {error.filename!r}" if error.filename else ""
            raise OperationalError(
                f"broker folder {str(self.root)!r} does not work: {error.strerror or error}{place}; "
                "it needs a local disk with free space, owned and writable by this user"
            ) from error

    def _present(self) -> Owner:
        if self._owner is None or not self._owner.is_mine:  # not connected yet, or forked since
            self._owner, self._wake = join(self.root), None
        return self._owner

    def _listening(self) -> Wake:
        with self.naming_folder() as owner:
            if self._wake is None:
                self._wake = owner.open_wake()
            return self._wake

    def _recover_if_due(self) -> None:
        now = time.monotonic()
        if now - self._looked >= _LOOK_INTERVAL:
            self._looked = now
            with self.naming_folder() as owner:
                owner.recover_dead()

    def _look(self) -> None:
        self._recover_if_due()
        self._deliver_burst()

    def _deliver_burst(self) -> None:
        self._listening().clear()
        with contextlib.suppress(Empty):
            for _ in range(_BURST):
                self.cycle.get(self._deliver, timeout=0)
            self.look_again()

    def _leave_hub(self) -> None:
        hub, self._hub = self._hub, None
        if hub is None:
            return
        self._timer.cancel()
        if self._wake is not None and self._wake.fd >= 0:
            hub.remove_reader(self._wake.fd)


def _binding(routing_key: str | None, pattern: str | None, queue: str) -> Binding:
    return Binding(routing_key or "", pattern, queue)


def _folder(client: Any) -> Path:
    path = client.virtual_host
    if client.hostname not in (None, "localhost") or not path or not path.strip("/"):
        raise ValueError(  # not an OperationalError: those are tried again
            f"a {SCHEME} address names an absolute folder after three slashes, {SCHEME}:///var/lib/app/broker; "
            f"got host {client.hostname!r} and path {path!r}"
        )
    return Path("/", path)
