"""Runs that were there before runs could be resumed."""

import asyncio
from importlib.resources import files
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from workflow_service.gateways.postgres.migrator import migrate

pytestmark = pytest.mark.needs("postgres")

FIRST = files("workflow_service.gateways.postgres") / "migrations" / "0001_runs_and_documents.sql"
SCHEMA = """
CREATE SCHEMA workflow;
CREATE TABLE workflow.schema_versions (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO workflow.schema_versions VALUES (1, 'runs_and_documents');
"""
RUNS = """
INSERT INTO workflow.runs (user_id, workflow_name, input_data, options, request_hash, status, error, finished_at)
VALUES ('alice', 'review', '{}', '{}', '', 'failed', '{"message": "x"}', clock_timestamp()),
       ('alice', 'review', '{}', '{}', '', 'queued', NULL, NULL)
"""


def test_what_ended_then_keeps_nothing_and_what_waits_can_go_on(empty_database):
    """The migration sees the rows of all users, though row security binds the owner who runs it."""
    role = f"owner_{uuid4().hex}"
    theirs = urlsplit(empty_database)
    address = theirs.netloc.rpartition("@")[2]
    url = theirs._replace(netloc=f"{role}:secret@{address}").geturl()

    async def scenario():
        admin = await asyncpg.connect(empty_database)
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        try:
            await admin.execute(f"ALTER DATABASE {theirs.path[1:]} OWNER TO {role}")
            owner = await asyncpg.connect(url)
            await owner.execute(SCHEMA + FIRST.read_text() + RUNS)
            await owner.close()
            await migrate(url)
            rows = await admin.fetch("SELECT status, is_kept FROM workflow.runs ORDER BY status")
            assert [tuple(row) for row in rows] == [("failed", False), ("queued", True)]
        finally:
            await admin.execute(
                f"DROP OWNED BY {role} CASCADE; ALTER DATABASE {theirs.path[1:]} OWNER TO CURRENT_USER"
            )
            await admin.execute(f"DROP ROLE {role}")
            await admin.close()

    asyncio.run(scenario())
