"""The Celery samples of the source documents run as written, in real workers of several pools."""

import asyncio
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from celery import Celery
from cryptography.fernet import Fernet

from homeloop import as_user

WAIT = 60.0  # seconds for a result; tells a hang from an answer
pytestmark = [
    pytest.mark.needs("redis", "postgres"),
    pytest.mark.timeout(180),
]
SCHEMA = """
CREATE TABLE documents (
    id text PRIMARY KEY, owner text NOT NULL DEFAULT current_setting('app.user_id'), body text
);
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON documents USING (owner = current_setting('app.user_id', true));
INSERT INTO documents VALUES ('1', 'alice', 'of alice'), ('2', 'bob', 'of bob');
CREATE TABLE progress (analysis_id text, step text, percent int, description text);
"""


async def _ask(dsn: str, query: str, *args: object) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()


async def _execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


@pytest.fixture
def documents(own_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with documents that row level security guards, and the role that it binds."""
    server = urlsplit(own_database)
    role = server.path.strip("/")
    create = f"CREATE ROLE {role} LOGIN PASSWORD '{role}' NOSUPERUSER NOBYPASSRLS"
    asyncio.run(_execute(own_database, f"{create}; {SCHEMA}; GRANT ALL ON documents TO {role}"))
    place = f"{role}:{role}@{server.hostname}:{server.port or 5432}"
    monkeypatch.setenv("DATABASE_URL", urlunsplit(server._replace(netloc=place)))
    monkeypatch.setenv("SERVICE_DATABASE_URL", own_database)
    yield own_database
    asyncio.run(_execute(own_database, f"REVOKE ALL ON documents FROM {role}; DROP ROLE {role}"))


@pytest.fixture
def tasks(
    documents: str,
    celery_environment: None,
    close_client: Callable[[Celery], None],
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
) -> Iterator[ModuleType]:
    """The samples' module, as the client sees it."""
    monkeypatch.setenv("SEED_KEYS", Fernet.generate_key().decode())
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    monkeypatch.setenv("DOCUMENTED_INSTALL", "yes" if installed else "")
    import documented_tasks

    module = importlib.reload(documented_tasks)
    yield module
    module.celery_app.control.purge()
    close_client(module.celery_app)


@pytest.mark.parametrize(
    ("pool", "concurrency", "installed"),
    [
        ("threads", 4, False),
        ("eventlet", 10, False),  # as 002 starts its workers
        ("custom", 10, True),
    ],
)
def test_a2_the_documented_tasks(
    tasks, documents, start_worker, pool: str, concurrency: int, installed: bool
) -> None:
    """000: each user's tasks see that user's rows and no others, with and without `install`; 001 with it."""
    with start_worker("documented_tasks", pool, concurrency):
        sent = []
        for number in range(20):
            user, document = (("alice", "1"), ("bob", "2"), ("alice", "2"))[number % 3]
            with as_user(user):
                sent.append((user, document, tasks.my_async_task.delay(document, user)))
        for user, document, result in sent:
            expected = {("alice", "1"): "of alice", ("bob", "2"): "of bob"}.get((user, document))
            assert result.get(timeout=WAIT) == expected
        with as_user("bob"):
            assert tasks.my_task.delay("3").get(timeout=WAIT) is None
        if installed:
            _analyse(tasks, documents)
    assert asyncio.run(_ask(documents, "SELECT owner FROM documents WHERE id = '3'")) == [("bob",)]


def _analyse(tasks: ModuleType, documents: str) -> None:
    """001: the task before and after its repair, whose progress arrives whole and in order."""
    assert tasks.before.delay("before").get(timeout=WAIT) == "analysed"
    with as_user("alice"):
        assert tasks.comprehensive_document_analysis.delay("after").get(timeout=WAIT) == "analysed"
    found = asyncio.run(_ask(documents, "SELECT step, percent FROM progress WHERE analysis_id = 'after'"))
    assert found == [("read", 33), ("analyse", 66), ("report", 99)]
    assert asyncio.run(_ask(documents, "SELECT count(*) FROM homeloop_recovery")) == [(1,)]
