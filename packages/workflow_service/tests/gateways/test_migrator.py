"""Migrations: once, whole, by whoever comes first."""

import asyncio
import shutil
import subprocess
import sys

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DataError

from workflow_service.gateways.postgres import migrator, schema
from workflow_service.gateways.postgres.migrator import migrate, sql_from
from workflow_service.gateways.postgres.schema import MIGRATIONS, current_revision, is_migrated, revisions
from workflow_service.ports import SchemaTooNewError, StoreUnavailableError

pytestmark = pytest.mark.needs("postgres")

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
BEFORE_ALEMBIC = """
CREATE TABLE workflow.schema_versions (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO workflow.schema_versions VALUES (1, 'runs_and_documents');
"""


def on_pool(url, scenario):
    async def main():
        async with asyncpg.create_pool(url, min_size=1, max_size=8) as pool:
            async with asyncio.timeout(60):
                return await scenario(pool)

    return asyncio.run(main())


@pytest.fixture
def more_migrations(tmp_path, monkeypatch):
    """Add migrations to those of the release, of some statements each."""

    def add(*statements):
        folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations and more")
        for number, sql in enumerate(statements, 9000):
            before = revisions()[-1] if number == 9000 else f"{number - 1}"
            (folder / f"{number}_more.py").write_text(
                "from alembic import op\n"
                f'revision = "{number}"\ndown_revision = "{before}"\n'
                f"def upgrade():\n    op.execute({sql!r})\n"
            )
        for module in (migrator, schema):
            monkeypatch.setattr(module, "MIGRATIONS", folder)

    return add


def test_migrators_that_start_at_once_migrate_once(empty_database):
    """Of eight migrators at once one does all the work, and a later one finds nothing to do."""

    async def scenario(pool):
        assert not await is_migrated(pool.acquire)
        applied = await asyncio.gather(*(migrate(empty_database) for _ in range(8)))
        assert sorted(applied) == [()] * 7 + [revisions()]
        assert await migrate(empty_database) == ()
        assert await is_migrated(pool.acquire)
        assert await current_revision(pool.acquire) == revisions()[-1]

    on_pool(empty_database, scenario)


def test_processes_that_start_at_once_migrate_once(empty_database):
    """The same holds between processes."""
    program = (
        "import asyncio, sys\n"
        "from workflow_service.gateways.postgres.migrator import migrate\n"
        "print(len(asyncio.run(migrate(sys.argv[1]))))\n"
    )
    command = [sys.executable, "-c", program, empty_database]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(int(each.communicate(timeout=60)[0]) for each in started) == [0, 0, len(revisions())]


def test_a_newer_schema_is_refused(empty_database):
    """A release that meets a schema of the future changes nothing and says what to do."""

    async def scenario(pool):
        await migrate(empty_database)
        await pool.execute("UPDATE workflow.alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaTooNewError, match="9999"):
            await migrate(empty_database)
        assert not await is_migrated(pool.acquire)

    on_pool(empty_database, scenario)


def test_a_failing_migration_leaves_nothing(empty_database, more_migrations):
    """When the second of two new migrations fails, the first is not there either."""
    more_migrations("CREATE TABLE workflow.half ()", "CREATE TABLE workflow.other (); SELECT 1 / 0")

    async def scenario(pool):
        with pytest.raises(DataError, match="division by zero"):
            await migrate(empty_database)
        assert await pool.fetchval("SELECT to_regnamespace('workflow')") is None

    on_pool(empty_database, scenario)


def test_a_database_of_the_time_before_alembic_is_taken_over(empty_database, more_migrations):
    """What the service's own numbering had made stays, and what is new comes on top."""
    more_migrations("CREATE TABLE workflow.more ()")

    async def scenario(pool):
        await pool.execute("CREATE SCHEMA workflow")
        await pool.execute((MIGRATIONS / "0001_runs_and_documents.sql").read_text())
        await pool.execute(BEFORE_ALEMBIC)
        assert await current_revision(pool.acquire) is None
        assert await migrate(empty_database) == revisions()[1:]
        assert await is_migrated(pool.acquire)
        assert await pool.fetchval("SELECT to_regclass('workflow.schema_versions')") is None
        assert await pool.fetchval("SELECT to_regclass('workflow.more')") is not None

    on_pool(empty_database, scenario)


def test_a_database_of_a_later_time_before_alembic_is_refused(empty_database):
    """A number that no release had is not guessed at, and nothing is changed."""

    async def scenario(pool):
        await pool.execute(f"CREATE SCHEMA workflow; {BEFORE_ALEMBIC}")
        await pool.execute("UPDATE workflow.schema_versions SET version = 9999")
        with pytest.raises(SchemaTooNewError, match="9999"):
            await migrate(empty_database)
        assert await pool.fetchval("SELECT version FROM workflow.schema_versions") == 9999

    on_pool(empty_database, scenario)


def test_the_sql_does_what_migrate_does(empty_database):
    """Run by hand, the printed SQL leaves a migrated database; for one that is migrated it changes nothing."""

    async def scenario(pool):
        await pool.execute(sql_from(None))
        assert await is_migrated(pool.acquire)
        assert await migrate(empty_database) == ()

    on_pool(empty_database, scenario)
    assert "CREATE TABLE" not in sql_from(revisions()[-1])
    with pytest.raises(SchemaTooNewError, match="9999"):
        sql_from("9999")


def test_a_cancelled_migration_ends_and_changes_nothing(empty_database):
    """One that waits for another migrator is cancelled at once, although it waits on a thread."""

    async def scenario(pool):
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock($1)", migrator._LOCK)
            waiting = asyncio.create_task(migrate(empty_database))
            while not await pool.fetchval(WAITING):  # noqa: ASYNC110  another session's state has no event
                await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await pool.fetchval("SELECT to_regnamespace('workflow')") is None

    on_pool(empty_database, scenario)


def test_a_database_that_is_away_is_named():
    """The error is the service's own and says what to look at."""
    with pytest.raises(StoreUnavailableError, match="check DATABASE_URL"):
        asyncio.run(migrate("postgresql://127.0.0.1:1/nowhere"))


def test_migrations_are_one_line():
    """Each has its number for a name and stands on another one, and lies beside its SQL; none is left out."""
    directory = ScriptDirectory.from_config(migrator._config())
    assert tuple(reversed([each.revision for each in directory.walk_revisions()])) == revisions()
    assert sorted(revisions()) == sorted(path.name[:4] for path in MIGRATIONS.glob("*.py"))
    assert sorted(path.stem for path in MIGRATIONS.glob("*.sql")) == sorted(
        path.stem for path in MIGRATIONS.glob("*.py")
    )
