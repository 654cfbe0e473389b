"""Brings the schema ``workflow`` to the version this release needs."""

import re
from dataclasses import dataclass
from importlib.resources import files

from workflow_service.gateways.postgres.connection import Connect, Connection, open_connection
from workflow_service.ports import SchemaTooNewError

_LOCK = 7_094_823_517_160_042  # any number will do, as long as nothing else in this database takes the same one
_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered step of the schema."""

    version: int
    name: str
    sql: str


def migrations() -> tuple[Migration, ...]:
    """Return the migrations that ship with this release, in order: versions 1, 2, 3 and so on."""
    found = []
    for file in files("workflow_service.gateways.postgres").joinpath("migrations").iterdir():
        if match := _FILE_NAME.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(connect: Connect) -> int:
    """Apply what is missing, all or nothing, and return how many migrations that were.

    Any number of processes may call this at once: one works, the others wait for it and find nothing to do.

    Raises:
        SchemaTooNewError: The database is ahead of this release. Nothing was changed.
        StoreUnavailableError: The database could not be reached. Nothing was changed.
    """
    async with open_connection(connect) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        current = await _current_version(connection)
        _refuse_newer(current)
        if current == 0:
            await connection.execute(_CREATE_VERSIONS)
        missing = [migration for migration in migrations() if migration.version > current]
        for migration in missing:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO workflow.schema_versions (version, name) VALUES ($1, $2)",
                migration.version,
                migration.name,
            )
        return len(missing)


async def is_migrated(connect: Connect) -> bool:
    """Return whether the schema has exactly the version this release needs."""
    async with open_connection(connect) as connection:
        return await _current_version(connection) == _newest_version()


_CREATE_VERSIONS = """
CREATE SCHEMA IF NOT EXISTS workflow;
CREATE TABLE workflow.schema_versions (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


async def _current_version(connection: Connection) -> int:
    if await connection.fetchval("SELECT to_regclass('workflow.schema_versions')") is None:
        return 0
    version = await connection.fetchval("SELECT coalesce(max(version), 0) FROM workflow.schema_versions")
    return int(version)


def _newest_version() -> int:
    return migrations()[-1].version


def _refuse_newer(current: int) -> None:
    if current > _newest_version():
        raise SchemaTooNewError(
            f"the database has schema version {current}, this release knows up to {_newest_version()}; "
            "start the newer release, or restore a backup made before it ran"
        )
