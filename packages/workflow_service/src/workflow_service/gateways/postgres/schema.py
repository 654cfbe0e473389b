"""Which version the schema ``workflow`` has, and which one this release needs."""

import re
from importlib.resources import files

from workflow_service.gateways.postgres.connection import Connect, open_connection

SCHEMA = "workflow"
VERSION_TABLE = "alembic_version"
CURRENT_REVISION = f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"  # noqa: S608

MIGRATIONS = files("workflow_service.gateways.postgres") / "migrations"

_HEADER = re.compile(r'^revision = "(?P<revision>\w+)"\ndown_revision = (?:None|"(?P<down>\w+)")$', re.MULTILINE)


def revisions() -> tuple[str, ...]:
    """Return the migrations that ship with this release, in the order in which they stand on each other.

    Their files are read for it: to ask Alembic costs 24 MB, which only who migrates should pay.
    """
    following = {}
    for file in MIGRATIONS.iterdir():
        if file.name.endswith(".py"):
            found = _HEADER.search(file.read_text(encoding="utf-8"))
            assert found is not None, f"{file.name} does not say which revision it is"
            following[found["down"]] = found["revision"]
    line, last = [], following.get(None)
    while last is not None:
        line.append(last)
        last = following.get(last)
    return tuple(line)


async def current_revision(connect: Connect) -> str | None:
    """Return the version of the schema; None where there is none, or one of the time before Alembic.

    Raises:
        StoreUnavailableError: The database could not be reached.
    """
    async with open_connection(connect) as connection, connection.transaction():
        if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.{VERSION_TABLE}") is None:
            return None
        revision: str | None = await connection.fetchval(CURRENT_REVISION)
        return revision


async def is_migrated(connect: Connect) -> bool:
    """Return whether the schema has exactly the version this release needs. Raises as `current_revision`."""
    return await current_revision(connect) == revisions()[-1]
