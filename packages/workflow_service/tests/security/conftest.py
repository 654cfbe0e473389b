"""Databases as deployments have them: one for each way in which the service's role may stand to its tables."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool
from workflow_service.gateways.postgres.connection import prepare_connection
from workflow_service.gateways.postgres.migrator import migrate

T = TypeVar("T")

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
