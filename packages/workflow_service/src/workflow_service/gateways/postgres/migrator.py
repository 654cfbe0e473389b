"""Brings the schema ``workflow`` to the version this release needs, with Alembic.

Alembic and SQLAlchemy work on a thread, on one connection of psycopg, for as long as a migration takes; nothing
else in the service uses them.
"""

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from threading import Lock

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from workflow_service.gateways.postgres.schema import (
    CURRENT_REVISION,
    MIGRATIONS,
    SCHEMA,
    VERSION_TABLE,
    revisions,
)
from workflow_service.ports import SchemaTooNewError, StoreUnavailableError

_LOCK = 7_094_823_517_160_042  # any number will do, as long as nothing else in this database takes the same one
_CONNECT_TIMEOUT = 10  # seconds
_LOCK_TIMEOUT = 15.0
"""Seconds a statement may wait for a lock: behind one that waits for long, the queries of all others wait too."""
_FIRST = "0001"
_ALEMBIC = files("workflow_service.gateways.postgres") / "alembic"

_one_at_a_time = Lock()
"""Alembic hands migrations their connection by way of globals."""


async def migrate(database_url: str) -> tuple[str, ...]:
    """Apply what is missing, all or nothing, and return the names of those migrations.

    Any number of processes may call this at once: one works, the others wait for it and find nothing to do.
    A database of the time before Alembic is taken over.

    Raises:
        SchemaTooNewError: The database is ahead of this release. Nothing was changed.
        StoreUnavailableError: The database could not be reached, or something else held a lock for longer than
            15 s. Nothing was changed.

    Cancellation: ends the statement under way; nothing is changed, unless the COMMIT was sent already.
    """
    return await _Work(database_url).run()


def sql_from(revision: str | None) -> str:
    """Return the SQL that brings a database from a version to this release's, for those who run it by hand.

    Args:
        revision: The version; None is an empty database.

    Raises:
        SchemaTooNewError: This release does not know the version.
    """
    if revision is not None:
        _refuse_unknown(revision)
    config, written = _config(), io.StringIO()
    config.output_buffer = written
    with _one_at_a_time:
        command.upgrade(config, f"{revision or 'base'}:head", sql=True)
    return written.getvalue()


class _Work:
    """One migration of one database, on a thread."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: SqlConnection | None = None
        self._is_cancelled = False

    async def run(self) -> tuple[str, ...]:
        work = asyncio.ensure_future(asyncio.to_thread(self._migrate))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._is_cancelled = True
            if (connection := self._connection) is not None:
                await asyncio.to_thread(_cancel, connection)
            await asyncio.wait([work])
            work.exception()  # seen: what it says is that it was cancelled
            raise

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._url, connect_timeout=_CONNECT_TIMEOUT)

    def _migrate(self) -> tuple[str, ...]:
        # The address goes to libpq as it is: SQLAlchemy reads addresses in a way of its own.
        engine = create_engine("postgresql+psycopg://", creator=self._connect, poolclass=NullPool)
        with _translated(), engine.connect() as connection, connection.begin():
            self._connection = connection
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            connection.execute(
                text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{_LOCK_TIMEOUT * 1000:.0f}ms"}
            )
            current = _prepare(connection)
            if self._is_cancelled:
                raise StoreUnavailableError("the migration was cancelled")
            with _one_at_a_time:
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        shipped = revisions()
        return shipped[0 if current is None else shipped.index(current) + 1 :]


def _prepare(connection: SqlConnection) -> str | None:
    """Make the schema, take over one of the time before Alembic, and return its version."""
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    if _exists(connection, VERSION_TABLE):
        current: str | None = connection.scalar(text(CURRENT_REVISION))
        if current is not None:
            _refuse_unknown(current)
        return current
    if not _exists(connection, "schema_versions"):
        return None
    # Of the service's own numbering only this version was ever released.
    version = connection.scalar(text("SELECT max(version) FROM workflow.schema_versions"))
    _refuse_unknown(f"{version:04}")
    connection.execute(text("DROP TABLE workflow.schema_versions"))
    config = _config()
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.stamp(config, _FIRST)
    return _FIRST


def _exists(connection: SqlConnection, table: str) -> bool:
    found = connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.{table}"})
    return found is not None


def _refuse_unknown(current: str) -> None:
    if current not in revisions():
        raise SchemaTooNewError(
            f"the database has schema version {current}, this release knows up to {revisions()[-1]}; "
            "start the newer release, or restore a backup made before it ran"
        )


def _config() -> Config:
    config = Config()
    options = {
        "script_location": str(_ALEMBIC),
        "path_separator": "newline",  # a folder may have a space in its name
        "version_locations": str(MIGRATIONS),
    }
    for name, value in options.items():
        config.set_main_option(name, value.replace("%", "%%"))  # configparser's sign for references
    return config


def _cancel(connection: SqlConnection) -> None:
    driver = connection.connection.driver_connection
    if driver is not None:
        driver.cancel_safe(timeout=_CONNECT_TIMEOUT)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.OperationalError):
            raise
        reason = str(error.orig).strip() or type(error.orig).__name__
        message = f"the database did not answer ({reason}); check DATABASE_URL and its server"
        raise StoreUnavailableError(message) from error
