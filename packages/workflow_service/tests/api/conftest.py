"""The API behind a real uvicorn, on a real database, with a workflow and a broker that do nothing."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn

from workflow_service.api import app as app_module
from workflow_service.domain.run import Claim
from workflow_service.ports import InvalidInputError, RunContext
from workflow_service.settings import Settings
from workflow_service.usecases.services import ApiServices

KEYS = {"alice": "alice's key", "bob": "bob's key", "nobody": ""}
MAX_UPLOAD = 200_000  # bytes
_BOUND = 30.0  # seconds


class IdleWorkflow:
    """Fits the Workflow port; runs of it wait for a worker that never comes, unless a test plays it."""

    name = "idle"
    description = "Does nothing."
    input_schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self) -> None:
        self.forgotten: list[UUID] = []

    def check(self, input_data: Mapping[str, Any]) -> None:
        if "bad" in input_data:
            raise InvalidInputError("input_data.bad must not be set")

    async def run(self, context: RunContext) -> Any:
        raise AssertionError("no worker here")

    async def forget(self, run_id: UUID) -> None:
        self.forgotten.append(run_id)


class ListQueue:
    """Fits the JobQueue port."""

    def __init__(self) -> None:
        self.sent: list[UUID] = []

    async def enqueue(self, run_id: UUID) -> None:
        self.sent.append(run_id)


@dataclass
class Server:
    """A server that listens, and the inside of it."""

    address: str
    services: ApiServices
    loop: asyncio.AbstractEventLoop

    def client(self, key: str | None = KEYS["alice"]) -> httpx.Client:
        """Return a client with a user's key, or none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.address, headers=headers, trust_env=False, timeout=_BOUND)

    def call(self, make: Callable[[ApiServices], Any]) -> Any:
        """Await ``make(services)`` on the server's loop."""

        async def on_loop() -> Any:
            return await make(self.services)

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(_BOUND)

    def claim(self, run_id: str) -> Claim:
        """Play the worker: claim a run."""
        claim = self.call(lambda services: services.runs.claim(UUID(run_id), "worker", 60))
        assert claim is not None
        return claim


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A folder with one sample."""
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "mutual nda.md").write_text("# NDA")
    return folder


@pytest.fixture
def settings(database: str, samples: Path) -> Settings:
    """Settings of the test's server."""
    return Settings(
        database_url=database,
        broker_url="memory://",
        api_keys=KEYS,
        samples=samples,
        max_upload_bytes=MAX_UPLOAD,
        reap_interval=60,
    )


@pytest.fixture
def serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start the API in a thread, ``root_path`` as uvicorn's; other keyword arguments replace services."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(root_path: str = "", **changes: Any) -> Server:
        opened: list[tuple[ApiServices, asyncio.AbstractEventLoop]] = []
        real_open_api = app_module.open_api

        @asynccontextmanager
        async def open_api(chosen: Settings) -> Any:
            async with real_open_api(chosen) as services:
                changed = replace(
                    services, **{"workflows": {"idle": IdleWorkflow()}, "queue": ListQueue()} | changes
                )
                opened.append((changed, asyncio.get_running_loop()))
                yield changed

        monkeypatch.setattr(app_module, "open_api", open_api)
        listener = socket.create_server(("127.0.0.1", 0))
        app = app_module.create_app(settings)
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5, root_path=root_path)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        _wait(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        services, loop = opened[0]
        return Server(f"http://127.0.0.1:{listener.getsockname()[1]}", services, loop)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(_BOUND)
        assert not thread.is_alive()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """The API, running."""
    return serve()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """Alice."""
    with server.client() as http:
        yield http


@pytest.fixture
def bob(server: Server) -> Iterator[httpx.Client]:
    """Another user."""
    with server.client(KEYS["bob"]) as http:
        yield http


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition; fail after half a minute."""
    return _wait


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _BOUND
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """What a process of its own needs to serve the same."""
    return {
        **os.environ,
        "DATABASE_URL": settings.database_url,
        "BROKER_URL": "memory://",
        "WORKFLOW_API_KEYS": '{"alice": "alice\'s key"}',
    }


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
