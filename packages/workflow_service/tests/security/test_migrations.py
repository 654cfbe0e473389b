"""Migrations, and the rows that they must not pass by."""

import asyncio
import shutil
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from workflow_service.domain.run import NewRun
from workflow_service.gateways.postgres import migrator, schema
from workflow_service.gateways.postgres.connection import open_session
from workflow_service.gateways.postgres.migrator import migrate
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.gateways.postgres.schema import MIGRATIONS, revisions

pytestmark = pytest.mark.needs("postgres")

CHANGE = "UPDATE workflow.runs SET input_data = '{\"changed\": true}'"
LIFTED = f"""
ALTER TABLE workflow.runs NO FORCE ROW LEVEL SECURITY;
{CHANGE};
ALTER TABLE workflow.runs FORCE ROW LEVEL SECURITY;
"""


@pytest.fixture
def next_migration(tmp_path, monkeypatch):
    """Add a migration of the release's kind, with this SQL."""

    def add(sql):
        folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations", dirs_exist_ok=True)
        (folder / "9000_next.sql").write_text(sql)
        (folder / "9000_next.py").write_text(
            "from workflow_service.gateways.postgres.migrating import execute_sql_beside\n"
            f'revision = "9000"\ndown_revision = "{newest}"\n'
            "def upgrade():\n    execute_sql_beside(__file__)\n"
        )
        for module in (migrator, schema):
            monkeypatch.setattr(module, "MIGRATIONS", folder)

    newest = revisions()[-1]
    return add


def test_a_change_of_users_rows_is_made_or_refused_but_never_passes_by(deployment, on, next_migration):
    """For the owner that policies bind, an UPDATE would touch nothing and say nothing: here it is an error."""
    is_superuser = on(
        deployment,
        lambda pool: pool.fetchval(
            "SELECT rolsuper FROM pg_roles WHERE rolname = $1", urlsplit(deployment).username
        ),
    )
    run, _ = on(deployment, lambda pool: PostgresRunStore(pool.acquire).create(NewRun("alice", "idle", {})))
    next_migration(CHANGE)
    if not is_superuser:
        with pytest.raises(DBAPIError, match="row-level security"):
            asyncio.run(migrate(deployment))
        next_migration(LIFTED)
    asyncio.run(migrate(deployment))
    changed = on(deployment, lambda pool: PostgresRunStore(pool.acquire).get("alice", run.id))
    assert changed.input_data == {"changed": True}


def test_a_new_table_is_protected_by_one_line(deployment, on, next_migration):
    """The recipe: what a migration makes ends with SELECT workflow.protect()."""
    next_migration(
        "CREATE TABLE workflow.notes (user_id text NOT NULL, note text NOT NULL);\n"
        "CREATE TABLE workflow.costs (run_id uuid REFERENCES workflow.runs ON DELETE CASCADE, cost numeric);\n"
        "SELECT workflow.protect();\n"
    )
    asyncio.run(migrate(deployment))

    async def scenario(pool):
        runs = PostgresRunStore(pool.acquire)
        for user_id in ("alice", "bob"):
            run, _ = await runs.create(NewRun(user_id, "idle", {}))
            async with open_session(pool.acquire, user_id) as connection:
                await connection.execute("INSERT INTO workflow.notes VALUES ($1, $1)", user_id)
                await connection.execute("INSERT INTO workflow.costs VALUES ($1, 1)", run.id)
        async with open_session(pool.acquire, "alice") as connection:
            assert await connection.fetchval("SELECT string_agg(note, ' ') FROM workflow.notes") == "alice"
            assert await connection.fetchval("SELECT count(*) FROM workflow.costs") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with open_session(pool.acquire, "alice") as connection:
                await connection.execute("INSERT INTO workflow.costs VALUES ($1, 1)", run.id)

    on(deployment, scenario)
