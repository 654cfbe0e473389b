"""The broker as a wake-up: messages arrive, and a broker that is away is an error soon."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest
from kombu import Connection
from relay import relay

from workflow_service import contracts
from workflow_service.gateways import celery_queue
from workflow_service.gateways.celery_queue import CeleryJobQueue
from workflow_service.ports import QueueUnavailableError


@pytest.fixture
def queue_name(monkeypatch):
    """A queue of this test's own on brokers that others use too."""
    name = f"workflow_service_test_{uuid4().hex}"
    monkeypatch.setattr(celery_queue, "QUEUE", name)
    return name


def take_all(url, name, count):
    """Take ``count`` messages off a queue and delete it."""
    with Connection(url) as connection:
        with connection.SimpleQueue(name) as queue:
            messages = [queue.get(timeout=10) for _ in range(count)]
            for message in messages:
                message.ack()
            with pytest.raises(queue.Empty):
                queue.get_nowait()
        connection.default_channel.queue_delete(name)
    return messages


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis_url", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq_url", marks=pytest.mark.needs("rabbitmq")),
    ],
)
def test_each_run_id_arrives_as_a_message_for_the_task(request, broker, queue_name):
    """Sends from many tasks at once arrive once each, with the task's name and the id as its only argument."""
    url = request.getfixturevalue(broker)
    ids = [uuid4() for _ in range(20)]

    async def scenario():
        queue = CeleryJobQueue(url)
        try:
            assert await queue.is_reachable()
            await asyncio.gather(*(queue.enqueue(run_id) for run_id in ids))
        finally:
            await queue.aclose()

    asyncio.run(scenario())
    messages = take_all(url, queue_name, len(ids))
    assert {message.headers["task"] for message in messages} == {contracts.EXECUTE_RUN}
    assert sorted(message.payload[0][0] for message in messages) == sorted(map(str, ids))


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis_url", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq_url", marks=pytest.mark.needs("rabbitmq")),
    ],
)
def test_a_queue_that_is_closed_leaves_no_connection(request, broker, queue_name):
    """Not until somebody collects it as garbage; another queue of the same broker sends on."""
    url = request.getfixturevalue(broker)
    process = psutil.Process()
    before = {each.laddr for each in process.net_connections()}

    async def scenario():
        for _ in range(2):
            queue = CeleryJobQueue(url)
            await asyncio.gather(*(queue.enqueue(uuid4()) for _ in range(4)))
            await queue.aclose()

    asyncio.run(scenario())
    assert {each.laddr for each in process.net_connections()} <= before
    take_all(url, queue_name, 8)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_an_error(scheme, unused_tcp_port):
    """A refused connection raises QueueUnavailableError that says what to check; nothing is retried for ever."""

    async def scenario():
        queue = CeleryJobQueue(f"{scheme}://127.0.0.1:{unused_tcp_port}//")
        try:
            assert not await queue.is_reachable()
            with pytest.raises(QueueUnavailableError, match="BROKER_URL"):
                await queue.enqueue(uuid4())
        finally:
            await queue.aclose()

    asyncio.run(scenario())


@pytest.mark.needs("rabbitmq")
def test_a_broker_that_refuses_the_login_is_an_error(rabbitmq_url):
    """A password that was changed meanwhile delays runs as a broker does that is away; it fails no request."""
    where = urlsplit(rabbitmq_url)

    async def scenario():
        queue = CeleryJobQueue(f"amqp://{where.username}:sesame@{where.hostname}:{where.port or 5672}//")
        try:
            assert not await queue.is_reachable()
            with pytest.raises(QueueUnavailableError, match="ACCESS_REFUSED"):
                await queue.enqueue(uuid4())
        finally:
            await queue.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("broker", "standard_port"),
    [
        pytest.param("redis_url", 6379, marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq_url", 5672, marks=pytest.mark.needs("rabbitmq")),
    ],
)
def test_a_connection_that_has_gone_stale_is_replaced(request, broker, standard_port, queue_name):
    """A broker that was restarted between two sends gets both messages, and the caller notices nothing."""
    url = request.getfixturevalue(broker)
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or standard_port
    user = f"{parts.username}:{parts.password}@" if parts.username else ""

    async def scenario(between):
        queue = CeleryJobQueue(f"{parts.scheme}://{user}127.0.0.1:{between.port}{parts.path}")
        try:
            await queue.enqueue(uuid4())
            between.cut()
            await queue.enqueue(uuid4())
        finally:
            await queue.aclose()

    with relay(host, port) as between:
        asyncio.run(scenario(between))
    take_all(url, queue_name, 2)


@contextmanager
def silent_server():
    """A server that accepts connections and never says a word."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in accepted:
                connection.close()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_says_nothing_is_an_error(scheme, monkeypatch):
    """A broker that accepts and stays silent raises QueueUnavailableError, and its thread ends too."""
    monkeypatch.setattr(celery_queue, "_SOCKET_TIMEOUT", 0.2)

    async def scenario(port):
        queue = CeleryJobQueue(f"{scheme}://127.0.0.1:{port}//")
        try:
            with pytest.raises(QueueUnavailableError):
                await queue.enqueue(uuid4())
        finally:
            await queue.aclose()
        # aclose waits for the threads: the test ends only if they do

    with silent_server() as port:
        asyncio.run(scenario(port))


def test_a_broker_that_hangs_stops_nothing_else(monkeypatch):
    """However many sends hang, the loop's own threads are free; closing ends the threads of the sends."""
    release = threading.Event()

    def hang(_self, _run_id):
        assert release.wait(60)

    monkeypatch.setattr(CeleryJobQueue, "_send", hang)

    async def scenario():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        queue = CeleryJobQueue("memory://")
        try:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(queue.enqueue(uuid4()))
                await asyncio.sleep(0)  # now each send has its thread or its place in the line
                await asyncio.to_thread(release.set)
        finally:
            release.set()
            await queue.aclose()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("broker")]

    asyncio.run(scenario())
