"""The asyncio pool's Redis transport by itself: a hub and a consumer, and a real Redis."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Connection, Queue
from kombu.asynchronous import Hub

from homeloop.adapters.celery.pool import _redis_transport as ours

WAIT = 30.0  # seconds


class Consuming:
    """A hub and a consumer on some queues, as a worker has them."""

    def __init__(self, url: str, prefix: str, queues: list[Queue], prefetch: int, **options: Any) -> None:
        self.received: list[Any] = []
        self.connection = Connection(
            url, transport=ours.Transport, transport_options={"global_keyprefix": prefix, **options}
        )
        self.hub = Hub()
        self.channel = self.connection.channel()
        self.queues = [queue(self.channel) for queue in queues]
        for queue in self.queues:
            queue.declare()
        self.consumer = self.connection.Consumer(
            self.queues, channel=self.channel, on_message=self.received.append, prefetch_count=prefetch
        )

    def send(self, queue: int, *bodies: int, **options: Any) -> None:
        name = self.queues[queue].name
        with self.connection.Producer() as producer:
            for body in bodies:
                producer.publish({"n": body}, routing_key=name, serializer="json", **options)

    def start(self) -> None:
        self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        self.consumer.consume()

    def run_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline
            self.hub.run_once()

    def bodies(self) -> list[int]:
        return [message.payload["n"] for message in self.received]

    def close(self) -> None:
        self.connection.release()
        self.hub.close()


@pytest.fixture
def consuming(redis_url: str, prefix: str) -> Iterator[Callable[..., Consuming]]:
    """Make consumers that are closed in the end."""
    made: list[Consuming] = []

    def make(names: list[str], prefetch: int, *, url: str = redis_url, **options: Any) -> Consuming:
        made.append(Consuming(url, prefix, [Queue(name) for name in names], prefetch, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


class LossyRelay:
    """Stands before a Redis; can lose the answer to a command, and with it the connection, or all connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"127.0.0.1:{port}").geturl()
        self.to_lose: list[bytes] = []
        """The commands whose answers will be lost, in order."""
        self.is_away = False
        """Whether connections are closed as soon as they are made."""

    def go_away(self) -> None:
        """Close all connections; those that come are closed, too, until ``is_away`` is false again."""
        self.is_away = True
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                if self.is_away:
                    client.close()
                    continue
                pair = (client, socket.create_connection(self._target))
                self._sockets.extend(pair)
                self._threads.append(threading.Thread(target=self._serve, args=pair))
                self._threads[-1].start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while self._pass_on(client, server):
                pass
        for each in (client, server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what one of them says; tell whether that was not the last."""
        readable, _, _ = select.select([client, server], [], [])
        if server in readable:
            client.sendall(answer := server.recv(65536))
            return bool(answer)
        server.sendall(command := client.recv(65536))
        if command and self.to_lose and self.to_lose[0] in command:
            del self.to_lose[0]
            server.recv(65536)  # it is done
            return False
        return bool(command)


@pytest.fixture
def relay(redis_url: str) -> Iterator[LossyRelay]:
    made = LossyRelay(redis_url)
    yield made
    made.close()
