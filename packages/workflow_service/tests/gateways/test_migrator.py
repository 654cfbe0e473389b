"""Migrations: once, whole, by whoever comes first."""

import asyncio

import asyncpg
import pytest

from workflow_service.gateways.postgres import migrator
from workflow_service.gateways.postgres.migrator import Migration, is_migrated, migrate, migrations
from workflow_service.ports import SchemaTooNewError

pytestmark = pytest.mark.needs("postgres")


def on_pool(url, scenario):
    async def main():
        async with asyncpg.create_pool(url, min_size=1, max_size=8) as pool:
            return await scenario(pool)

    return asyncio.run(main())


def test_processes_that_start_at_once_migrate_once(empty_database):
    """Of eight migrators at once one does all the work, and a later one finds nothing to do."""

    async def scenario(pool):
        assert not await is_migrated(pool.acquire)
        applied = await asyncio.gather(*(migrate(pool.acquire) for _ in range(8)))
        assert sorted(applied) == [0] * 7 + [len(migrations())]
        assert await migrate(pool.acquire) == 0
        assert await is_migrated(pool.acquire)

    on_pool(empty_database, scenario)


def test_a_newer_schema_is_refused(empty_database):
    """A release that meets a schema of the future changes nothing and says what to do."""

    async def scenario(pool):
        await migrate(pool.acquire)
        await pool.execute("INSERT INTO workflow.schema_versions (version, name) VALUES (9999, 'later')")
        with pytest.raises(SchemaTooNewError, match="9999"):
            await migrate(pool.acquire)
        assert not await is_migrated(pool.acquire)

    on_pool(empty_database, scenario)


def test_a_failing_migration_leaves_nothing(empty_database, monkeypatch):
    """When the second of two new migrations fails, the first is not there either."""
    broken = (*migrations(), Migration(9000, "broken", "CREATE TABLE workflow.half (); SELECT 1 / 0"))
    monkeypatch.setattr(migrator, "migrations", lambda: broken)

    async def scenario(pool):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(pool.acquire)
        assert await pool.fetchval("SELECT to_regnamespace('workflow')") is None

    on_pool(empty_database, scenario)


def test_migrations_are_numbered_without_gaps():
    """Versions are 1, 2, 3 and so on: a forgotten or doubled number would never be applied."""
    versions = [migration.version for migration in migrations()]
    assert len(set(versions)) == len(versions)
