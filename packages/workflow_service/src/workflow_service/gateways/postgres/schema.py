"""Which version the schema ``workflow`` has, and which one this release needs."""

from importlib.resources import files

from workflow_service.gateways.postgres.connection import Connect, open_session

SCHEMA = "workflow"
VERSION_TABLE = "alembic_version"
CURRENT_REVISION = f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"  # noqa: S608

MIGRATIONS = files("workflow_service.gateways.postgres") / "migrations"


def revisions() -> tuple[str, ...]:
    """Return the migrations that ship with this release, in order: 0001, 0002 and so on.

    Their files' names say so: to ask Alembic costs 24 MB, which only who migrates should pay.
    """
    return tuple(sorted(file.name[:4] for file in MIGRATIONS.iterdir() if file.name.endswith(".py")))


async def current_revision(connect: Connect) -> str | None:
    """Return the version of the schema; None where there is none, or one of the time before Alembic.

    Raises:
        StoreUnavailableError: The database could not be reached.
    """
    async with open_session(connect) as connection:
        if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.{VERSION_TABLE}") is None:
            return None
        revision: str | None = await connection.fetchval(CURRENT_REVISION)
        return revision


async def is_migrated(connect: Connect) -> bool:
    """Return whether the schema has exactly the version this release needs. Raises as `current_revision`."""
    return await current_revision(connect) == revisions()[-1]
