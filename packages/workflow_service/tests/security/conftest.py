"""Databases as deployments have them, one for each way in which the service's role may stand to its tables; and
the service, running, for those who attack it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest

from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool
from workflow_service.gateways.postgres.connection import prepare_connection
from workflow_service.gateways.postgres.migrator import migrate
from workflow_service.local.programs import SERVE_API, worker_arguments

T = TypeVar("T")

BOUND = 60.0  # seconds for anything that is waited for

DEPLOYMENTS = {
    "superuser": "SUPERUSER",
    "owner": "NOSUPERUSER",
    "owner that may make roles": "NOSUPERUSER CREATEROLE",
}
"""How the role that owns the database is made."""


def _login(server: str, role: str, database: str) -> str:
    parts = urlsplit(server)
    host = (parts.hostname or "127.0.0.1") + (f":{parts.port}" if parts.port else "")
    return parts._replace(netloc=f"{role}:{role}@{host}", path=f"/{database}").geturl()


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(url: str) -> None:
    await migrate(url)
    async with open_checkpoint_pool(url, 1, 30.0):
        pass  # LangGraph's tables are made by who may make tables


@contextmanager
def _owned_database(server: str, rights: str) -> Iterator[str]:
    name = f"workflow_security_{uuid4().hex}"
    make = (f"CREATE ROLE {name} LOGIN {rights} PASSWORD '{name}'", f"CREATE DATABASE {name} OWNER {name}")
    asyncio.run(_execute(server, *make))
    try:
        yield _login(server, name, name)
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}"))


@pytest.fixture(params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own, for each kind of owner."""
    with _owned_database(postgres_url, DEPLOYMENTS[request.param]) as url:
        asyncio.run(_migrate(url))
        yield url


@pytest.fixture
def unbound_owner(postgres_url: str) -> Iterator[str]:
    """A migrated database whose owner no policy binds, and who may become nobody else."""
    with _owned_database(postgres_url, "NOSUPERUSER BYPASSRLS") as url:
        asyncio.run(_migrate(url))
        yield url


@pytest.fixture
def guest(postgres_url: str) -> Iterator[str]:
    """A migrated database, as a role that owns nothing and is a member of workflow_service_user."""
    name = f"workflow_guest_{uuid4().hex}"
    with _owned_database(postgres_url, "SUPERUSER") as url:
        asyncio.run(_migrate(url))
        make = (f"CREATE ROLE {name} LOGIN PASSWORD '{name}'", f"GRANT workflow_service_user TO {name}")
        asyncio.run(_execute(url, *make))
        try:
            yield _login(url, name, urlsplit(url).path.lstrip("/"))
        finally:
            asyncio.run(_execute(url, f"DROP ROLE {name}"))


@pytest.fixture
def on() -> Callable[[str, Callable[[Any], Awaitable[Any]]], Any]:
    """Run ``scenario(pool)`` on a loop of its own; the pool has one connection, which all of it shares."""

    def run(url: str, scenario: Callable[[Any], Awaitable[T]]) -> T:
        async def main() -> T:
            async with (
                asyncio.timeout(60),
                asyncpg.create_pool(url, min_size=1, max_size=1, init=prepare_connection) as pool,
            ):
                return await scenario(pool)

        return asyncio.run(main())

    return run


MARK = "MARKED"
"""Is a part of every secret that the running service is given."""


@dataclass(frozen=True)
class Running:
    """The service as it is run: an API and a worker in processes of their own, with secrets that can be found."""

    address: str
    folder: Path
    database_url: str
    secrets: dict[str, str]

    def client(self, user: str | None = "alice", **options: Any) -> httpx.Client:
        """Return a client with a user's key, or none."""
        headers = {} if user is None else {"Authorization": f"Bearer {self.secrets[user]}"}
        return httpx.Client(base_url=self.address, headers=headers, trust_env=False, timeout=BOUND, **options)

    def logs(self) -> str:
        """Return what the processes have logged so far."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="session")
def running(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service, running, for all tests of this folder."""
    folder = tmp_path_factory.mktemp("running")
    secrets = {user: f"{MARK}-key-of-{user}" for user in ("alice", "bob")}
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = stack.enter_context(_owned_database(postgres_url, "NOSUPERUSER"))
        secrets["database"] = f"{MARK}-database"
        parts = urlsplit(url)
        change = f"ALTER ROLE {parts.username} PASSWORD '{secrets['database']}'"
        asyncio.run(_execute(postgres_url, change))
        url = url.replace(f":{parts.password}@", f":{secrets['database']}@")
        secrets["token"] = f"{MARK}-{'secret of tokens ' * 3}"
        secrets["weather"] = f"{MARK}-weather"
        secrets["webhooks"] = f"{MARK}-{'webhooks' * 4}"
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "BROKER_URL": f"safefs://{folder / 'broker'}",
            "WORKFLOW_API_KEYS": json.dumps({user: secrets[user] for user in ("alice", "bob")}),
            "WORKFLOW_JWT_ALGORITHM": "HS256",
            "WORKFLOW_JWT_SECRET": secrets["token"],
            "WORKFLOW_JWT_ISSUER": "https://issuer.example",
            "WORKFLOW_JWT_AUDIENCE": "workflow-service",
            "WORKFLOW_SERVICES__WEATHERAPI__API_KEY": secrets["weather"],
            "WORKFLOW_SERVICES__WEATHERAPI__BASE_URL": "http://127.0.0.1:1",
            "WORKFLOW_WEBHOOK_SECRETS": json.dumps([secrets["webhooks"]]),
            "WORKFLOW_LOG_LEVEL": "DEBUG",
            "WORKFLOW_MAX_UPLOAD_BYTES": "300000",
            "PYTHONUNBUFFERED": "1",
        }
        (folder / "broker").mkdir(mode=0o700)
        descriptor = listener.fileno()
        api = (*SERVE_API, "--fd", str(descriptor), "--timeout-graceful-shutdown", "3")
        for name, command in (("api", api), ("worker", worker_arguments("threads", 2, "DEBUG"))):
            stack.enter_context(_process(name, command, folder, environment, descriptor))
        running = Running(f"http://127.0.0.1:{listener.getsockname()[1]}", folder, url, secrets)
        _wait_ready(running)
        yield running


@contextmanager
def _process(
    name: str, command: tuple[str, ...], folder: Path, environment: dict[str, str], descriptor: int
) -> Iterator[None]:
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(
            (sys.executable, "-m", *command),
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            pass_fds=(descriptor,),
        )
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(BOUND)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
            raise


def _wait_ready(running: Running) -> None:
    deadline = time.monotonic() + BOUND
    with running.client(None) as anyone:
        while True:
            with suppress(httpx.TransportError):
                if anyone.get("/health/ready").status_code == httpx.codes.OK:
                    return
            assert time.monotonic() < deadline, running.logs()
            time.sleep(0.05)
