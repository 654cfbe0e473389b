"""Throw-away databases for the tests of the service."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest

from workflow_service.gateways.postgres.connection import prepare_connection
from workflow_service.gateways.postgres.migrator import migrate

T = TypeVar("T")


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
    tables = "workflow.runs, workflow.run_events, workflow.documents, workflow.model_usage"
    asyncio.run(_execute(_migrated_database, f"TRUNCATE {tables}"))
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
