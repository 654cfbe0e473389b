"""A database with row level security, a role that it binds, and one that it does not."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from homeloop.database import ConnectionPoolManager

SCHEMA = """
CREATE TABLE documents (
    id text PRIMARY KEY, owner text NOT NULL DEFAULT current_setting('app.user_id'), body text
);
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON documents USING (owner = current_setting('app.user_id', true));
"""
ROWS = "INSERT INTO documents VALUES ('1', 'alice', 'of alice'), ('2', 'bob', 'of bob')"


@dataclass(frozen=True)
class Database:
    """A database of one test: as its owner (a superuser), and as a role that row level security binds."""

    service_dsn: str
    dsn: str
    role: str
    server_dsn: str

    def fetch(self, query: str, *args: object) -> list[dict[str, Any]]:
        """Ask as the superuser, over a connection that is gone afterwards."""
        return asyncio.run(_fetch(self.service_dsn.partition("?")[0], query, *args))

    def server(self, query: str, *args: object) -> list[dict[str, Any]]:
        """Ask as the superuser in another database, where it does not count as a connection to this one."""
        return asyncio.run(_fetch(self.server_dsn, query, *args))

    def connections(self) -> int:
        """Return how many connections the server has that homeloop opened for this test."""
        query = "SELECT count(*) AS count FROM pg_stat_activity WHERE application_name = $1"
        count: int = self.server(query, self.role)[0]["count"]
        return count


async def _fetch(dsn: str, query: str, *args: object) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [dict(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def module_database(postgres_url: str) -> Iterator[Database]:
    """A database and a role of the module's own, dropped afterwards."""
    name = f"homeloop_{uuid.uuid4().hex[:12]}"
    server = urlsplit(postgres_url)
    place = f"{server.hostname}:{server.port or 5432}"
    own = urlunsplit(server._replace(path=f"/{name}"))
    tag = f"?application_name={name}"
    role = f"CREATE ROLE {name} LOGIN PASSWORD '{name}' NOSUPERUSER NOBYPASSRLS"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}", role))
    asyncio.run(_execute(own, SCHEMA, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}"))
    try:
        yield Database(
            service_dsn=own + tag,
            dsn=urlunsplit(server._replace(netloc=f"{name}:{name}@{place}", path=f"/{name}")) + tag,
            role=name,
            server_dsn=postgres_url,
        )
    finally:
        asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}"))


@pytest.fixture
def database(module_database: Database) -> Iterator[Database]:
    """That database with its rows as they were; the test must leave no connection behind."""
    module_database.fetch("TRUNCATE documents")
    module_database.fetch(ROWS)
    yield module_database
    assert module_database.connections() == 0


@pytest.fixture
def configured(database: Database) -> Iterator[Database]:
    """The process's pools on that database, one connection each; back to the defaults afterwards."""
    ConnectionPoolManager.configure(database.dsn, service_dsn=database.service_dsn, min_size=1, max_size=1)
    yield database
    ConnectionPoolManager.close()
    ConnectionPoolManager.configure()
