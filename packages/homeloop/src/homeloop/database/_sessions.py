"""What makes a session safe to share: the role it logs in as, whose it is now, and that nothing stays in it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from homeloop import User
from homeloop.database._changes import is_changed, note_unchanged
from homeloop.errors import ConfigurationError, UnsafeRoleError, UserScopeError

RawConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
"""What the doors hand out: used like an `asyncpg.Connection`, until it has gone back to its pool."""

RESET_TIMEOUT = 10.0
"""Seconds that cleaning a connection may take, at the end of a block, before it is dropped instead. A guess."""

_ROLE = """
SELECT session_user::text AS role,
       ARRAY(SELECT rolname::text FROM pg_roles
             WHERE (rolsuper OR rolbypassrls) AND pg_has_role(session_user, oid, 'MEMBER')) AS exempt,
       ARRAY(SELECT oid::regclass::text FROM pg_class
             WHERE relrowsecurity AND NOT relforcerowsecurity
               AND pg_has_role(session_user, relowner, 'MEMBER') LIMIT 3) AS owned
"""

# A pooler makes up the number of the process that it tells its clients.
_DIRECT = "SELECT 1 / (pg_catalog.pg_backend_pid() = {pid})::int"

# The marker is the only statement that SQL prepared, save those of a user's own `init`. It is missing after
# DEALLOCATE ALL, which takes the driver's cached statements too, and it fails when a block left a prepared
# statement of its own.
_PREPARED = "SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql"
_MARK = """
PREPARE homeloop_untouched AS
SELECT 1 / (count(*) = {count})::int FROM pg_catalog.pg_prepared_statements WHERE from_sql
"""

# DISCARD ALL would do, but it takes the driver's cached statements too. RESET ALL leaves the role.
_RESET = """
RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES;
SELECT pg_catalog.pg_advisory_unlock_all(); EXECUTE homeloop_untouched
"""

# In one row, for of rows the driver would fetch the first one only, and the others would never be set. The
# server gives back what it made of a value: '5000' is '5s' to it.
_ENTER = (
    "SELECT array_agg(pg_catalog.set_config(name, value, true))"
    " FROM unnest($1::text[], $2::text[]) AS setting (name, value)"
)
_VERIFY = (
    "SELECT array_agg(name) FROM unnest($1::text[], $2::text[]) AS setting (name, value)"
    " WHERE pg_catalog.current_setting(name, true) IS DISTINCT FROM value"
)


def user_settings(user: User) -> dict[str, str]:
    """Return the settings that policies read by default: ``app.user_id``, and ``app.user_claims`` as JSON."""
    return {"app.user_id": user.id, "app.user_claims": json.dumps(dict(user.claims))}


async def refuse_pooler(connection: RawConnection) -> None:
    """
    Look whether the other end of a new connection is the server itself.

    Raises:
        ConfigurationError: It is a pooler.
    """
    try:
        # Not as a prepared statement: the first one that a pooler sees may fail already.
        await connection.execute(_DIRECT.format(pid=connection.get_server_pid()))
    except asyncpg.DivisionByZeroError:
        raise ConfigurationError(
            "the database is reached through a connection pooler, such as PgBouncer, which may give each"
            " transaction another session",
            "use the address of the database itself, or, if the pooler pools sessions, call"
            " ConnectionPoolManager.configure(pooler='session')",
        ) from None


async def mark_session(connection: RawConnection, *, is_new: bool) -> None:
    """
    Make a connection recognisable when it comes back.

    Args:
        connection: As its users are to get it.
        is_new: Whether nobody can have prepared a statement in it.
    """
    count = 0 if is_new else await connection.fetchval(_PREPARED)
    await connection.execute(_MARK.format(count=count + 1))
    note_unchanged(connection)


async def verify_role(connection: RawConnection) -> None:
    """
    Look whether row level security binds the role of a users' connection.

    Raises:
        UnsafeRoleError: It does not, or the role could become one that it does not bind.
    """
    (found,) = await connection.fetch(_ROLE)
    if found["exempt"]:
        raise UnsafeRoleError(found["role"], f"is or may become {_listed(found['exempt'])}, exempt from it")
    if found["owned"]:
        raise UnsafeRoleError(
            found["role"], f"owns {_listed(found['owned'])}, where it is not forced on the owner"
        )


async def reset_session(connection: RawConnection) -> None:
    """
    Leave nothing of the last user in a connection that goes back to its pool.

    Settings, role, temporary tables, cursors, listeners, locks and sequence values are undone. What
    cannot be undone, or not in time, closes the connection; the pool opens another one when it needs it.
    """
    if is_changed(connection):
        await connection.close(timeout=RESET_TIMEOUT)
        return
    try:
        async with asyncio.timeout(RESET_TIMEOUT):
            await connection.execute(_RESET)
    except asyncpg.PostgresError:
        await connection.close(timeout=RESET_TIMEOUT)
    except TimeoutError:
        connection.terminate()


async def enter_scope(connection: Connection, settings: Mapping[str, str]) -> dict[str, str]:
    """Set the user's settings for the transaction that has just begun; return them as the server has them."""
    values = await connection.fetchval(_ENTER, list(settings), list(settings.values()))
    return dict(zip(settings, values or (), strict=True))


async def verify_scope(connection: Connection, user: User, settings: Mapping[str, str]) -> None:
    """
    Look, before the commit, whether the transaction still is the user's.

    Args:
        connection: In the transaction, or so it should be.
        user: Whose it is.
        settings: As the server had them when the scope was entered.

    Raises:
        UserScopeError: It is not.
    """
    if not connection.is_in_transaction():
        raise UserScopeError(user.id, "the block ended it itself")
    try:
        changed = await connection.fetchval(_VERIFY, list(settings), list(settings.values()))
    except asyncpg.InFailedSQLTransactionError as error:
        raise UserScopeError(
            user.id, "a statement failed and the block went on without its transaction"
        ) from error
    except asyncpg.InvalidSQLStatementNameError as error:
        raise UserScopeError(user.id, "the block deallocated the connection's prepared statements") from error
    if changed:
        raise UserScopeError(user.id, f"the block changed {_listed(changed)}, or ended it and began another")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
