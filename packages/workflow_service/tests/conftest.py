"""Throw-away databases for the tests of the service, and a receiver of webhooks."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest

from workflow_service.gateways.postgres.connection import prepare_connection
from workflow_service.gateways.postgres.migrator import migrate

T = TypeVar("T")

_TABLES = ("runs", "run_events", "documents", "service_answers", "model_usage", "webhook_deliveries")
_EMPTY = "TRUNCATE " + ", ".join(f"workflow.{table}" for table in _TABLES)


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"workflow_service_test_{uuid4().hex}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    try:
        yield server.rpartition("/")[0] + f"/{name}"
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of a database of this test's own, without a schema."""
    with _database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated_database(postgres_url: str) -> Iterator[str]:
    with _database(postgres_url) as url:
        asyncio.run(migrate(url))
        yield url


@pytest.fixture
def database(_migrated_database: str) -> str:
    """The URL of a database with the service's schema and no rows; nobody else's, but kept for the session."""
    asyncio.run(_execute(_migrated_database, _EMPTY))
    return _migrated_database


@pytest.fixture
def with_pool(database: str) -> Callable[[Callable[[Any], Awaitable[T]]], T]:
    """Run ``scenario(pool)`` on a loop of its own; the pool has 10 connections to `database`."""

    def run(scenario: Callable[[Any], Awaitable[T]]) -> T:
        async def main() -> T:
            async with asyncpg.create_pool(database, min_size=1, max_size=10, init=prepare_connection) as pool:
                async with asyncio.timeout(60):
                    return await scenario(pool)

        return asyncio.run(main())

    return run


@dataclass
class Received:
    """A request that a receiver of webhooks got."""

    headers: Mapping[str, str]
    body: bytes
    path: str


class WebhookReceiver:
    """Takes webhooks; ``answers`` are the statuses of the next ones, then 204."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.arrived = threading.Event()
        self.gate: threading.Event | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(headers, body, self.path))
                receiver.arrived.set()
                if receiver.gate is not None:
                    receiver.gate.wait(60)
                with suppress(OSError):  # who sent it may be gone
                    self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                    for name, value in receiver.headers.items():
                        self.send_header(name, value)
                    self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self.port}/hook?for=run"

    def __enter__(self) -> "WebhookReceiver":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.gate is not None:
            self.gate.set()
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver of webhooks."""
    with WebhookReceiver() as running:
        yield running
