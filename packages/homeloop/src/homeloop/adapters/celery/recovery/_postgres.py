"""Recovery's records in a PostgreSQL table."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, TypeAlias, cast

import asyncpg

from homeloop import LoopLocal
from homeloop.adapters.celery._checkpoints import Saved
from homeloop.adapters.celery.recovery._records import (
    Claim,
    Held,
    LostTask,
    Progress,
    State,
    TaskRecord,
)
from homeloop.errors import ConfigurationError

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Any, Any]]
"""Lends a connection of the running loop's: an asyncpg connection, or a pool's proxy of one."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
_SCHEMES = ("postgresql://", "postgres://")
_MAX_CONNECTIONS = 4
"""Per loop: statements are short, and a thousand tasks share them."""

_BOUND = 10.0
"""Seconds for a connection, for a statement, and for giving a connection back. A guess."""

_PURGED = 1000
"""Rows that one statement deletes, so that each is short."""


class PostgresStore:
    """
    Keeps recovery's records in a table of PostgreSQL 12 or newer.

    Args:
        dsn: Where the database is; a small pool per loop opens on first use and is closed on its own loop. A
            connection, and a statement, that takes longer than 10 seconds fails.
        connect: Lends connections instead, such as `homeloop.database.get_service_connection`. It must
            be able to read and write the table, so not a user's connection.
        table: The table's name, or ``schema.name``; lower case, digits, underscores.

    Raises:
        ConfigurationError: Neither or both of ``dsn`` and ``connect`` are given, the dsn is none of PostgreSQL's,
            ``connect`` cannot be called, or the name is none.

    Thread: one object serves all threads and loops.
    """

    def __init__(
        self, dsn: str | None = None, *, connect: Connect | None = None, table: str = "homeloop_recovery"
    ) -> None:
        if (dsn is None) == (connect is None):
            raise ConfigurationError("recovery needs one database", "pass a dsn, or connect=, not both")
        address: Any = dsn  # not every caller is checked
        name: Any = table
        if dsn is not None and (not isinstance(address, str) or not address.startswith(_SCHEMES)):
            # Not its text: that may hold a password.
            scheme, is_address, _ = address.partition("://") if isinstance(address, str) else ("", "", "")
            found = f"a {scheme!r} address" if is_address else f"no address but of type {type(address).__name__}"
            raise ConfigurationError(
                f"PostgresStore: dsn is {found}", 'pass one like "postgresql://host/database"'
            )
        if connect is not None and not callable(connect):
            raise ConfigurationError(
                f"PostgresStore: connect is {connect!r}", "pass a function that lends connections"
            )
        if not isinstance(name, str) or not _NAME.fullmatch(table):
            raise ConfigurationError(f"{table!r} is no table's name", "use lower case letters, digits and _")
        self._table = table
        self._pools: LoopLocal[asyncpg.Pool[asyncpg.Record]] = LoopLocal(
            lambda: asyncpg.create_pool(
                dsn, min_size=0, max_size=_MAX_CONNECTIONS, timeout=_BOUND, command_timeout=_BOUND
            ),
            name="recovery pool",
        )
        self._connect = connect or self._lend

    async def prepare(self) -> None:
        """
        Create the table and its indexes, if they are not there. Idempotent; concurrent calls are safe.

        With a role that may not create tables, run what `schema` returns as one that may, once.

        Raises:
            asyncpg.PostgresError: The role may not create a table that is missing.
        """
        async with self._connect() as connection:
            if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", self._table):
                return
            async with connection.transaction():
                # IF NOT EXISTS alone fails when two look at the same time.
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", self._table)
                await connection.execute(self.schema())

    def schema(self) -> str:
        """Return the SQL that `prepare` runs."""
        return _SCHEMA.format(table=self._table, index=self._table.replace(".", "_"))

    async def claim(self, claim: Claim, lease: float, max_losses: int) -> Held | Literal["later"] | None:
        """See `RecoveryStore`."""
        row = await self._row(
            _CLAIM,
            claim.app,
            claim.task_id,
            claim.name,
            claim.replaced,
            claim.retries,
            claim.priority,
            claim.holder,
            claim.message,
            lease,
            max_losses,
        )
        if row is None:
            order = claim.replaced, claim.retries
            return "later" if await self._row(_COMES_LATER, claim.app, claim.task_id, *order) else None
        progress = None
        if row["step"] is not None:
            progress = Progress(json.loads(row["step"]), row["percent"], row["payload"])
        return Held(row["fence"], row["losses"], progress)

    async def renew(self, app: str, held: Mapping[str, int], lease: float) -> set[str]:
        """See `RecoveryStore`."""
        rows = await self._rows(_RENEW, app, list(held), list(held.values()), lease)
        return {row["task_id"] for row in rows}

    async def save(self, app: str, task_id: str, fence: int, progress: Progress, lease: float) -> Saved:
        """See `RecoveryStore`."""
        step, percent = json.dumps(progress.step), float(progress.percent)
        row = await self._row(_SAVE, app, task_id, fence, step, percent, progress.payload, lease)
        if row is None:
            return "lost"
        return "saved" if row["is_saved"] else "behind"

    async def end(self, app: str, task_id: str, fence: int | None) -> bool:
        """See `RecoveryStore`."""
        return await self._row(_END, app, task_id, fence) is not None

    async def wait(self, app: str, task_id: str, fence: int, delay: float) -> bool:
        """See `RecoveryStore`."""
        return await self._row(_WAIT, app, task_id, fence, delay) is not None

    async def release(self, app: str, task_id: str, fence: int, delay: float) -> bool:
        """See `RecoveryStore`."""
        return await self._row(_RELEASE, app, task_id, fence, delay) is not None

    async def sweep(self, app: str, lease: float, max_losses: int, limit: int) -> Sequence[LostTask]:
        """See `RecoveryStore`."""
        rows = await self._rows(_SWEEP, app, lease, max_losses, limit)
        rows = sorted(rows, key=lambda row: (-row["priority"], row["created"]))  # RETURNING has no order
        return [_lost(row) for row in rows]

    async def tell(self, app: str, task_id: str, fence: int) -> None:
        """See `RecoveryStore`."""
        await self._rows(_TELL, app, task_id, fence)

    async def purge(self, app: str, keep: float) -> None:
        """See `RecoveryStore`."""
        while await self._row(_PURGE, app, keep, _PURGED):
            pass

    async def list_tasks(self, app: str, state: State | None, limit: int) -> Sequence[TaskRecord]:
        """See `RecoveryStore`."""
        return [
            TaskRecord(
                task_id=row["task_id"],
                name=row["name"],
                state=row["state"],
                priority=row["priority"],
                losses=row["losses"],
                step=None if row["step"] is None else json.loads(row["step"]),
                percent=row["percent"],
                holder=row["holder"],
                updated=row["updated"],
            )
            for row in await self._rows(_LIST, app, state, limit)
        ]

    async def requeue(self, app: str, task_id: str, lease: float) -> LostTask | None:
        """See `RecoveryStore`."""
        row = await self._row(_REQUEUE, app, task_id, lease)
        return None if row is None else _lost(row)

    @asynccontextmanager
    async def _lend(self):  # type: ignore[no-untyped-def]  # as `Connect` says
        # The time-out is that of giving it back, too: a cancelled statement's clean-up hangs with its server.
        async with self._pools() as pool, pool.acquire(timeout=_BOUND) as connection:
            yield connection

    async def _rows(self, statement: str, *args: object) -> list[Any]:  # of asyncpg's records
        async with self._connect() as connection:
            return cast("list[Any]", await connection.fetch(statement.format(table=self._table), *args))

    async def _row(self, statement: str, *args: object) -> Any | None:
        async with self._connect() as connection:
            return await connection.fetchrow(statement.format(table=self._table), *args)


def _lost(row: Any) -> LostTask:
    return LostTask(
        task_id=row["task_id"],
        name=row["name"],
        fence=row["fence"],
        losses=row["losses"],
        is_dead=row["state"] == "dead",
        message=row["message"],
    )


_SCHEMA = """
CREATE TABLE IF NOT EXISTS {table} (
    app text NOT NULL,
    task_id text NOT NULL,
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'queued', 'waiting', 'ended', 'dead')),
    replaced int NOT NULL,
    retries int NOT NULL,
    priority int NOT NULL,
    fence bigint NOT NULL,
    losses int NOT NULL DEFAULT 0,
    is_told boolean NOT NULL DEFAULT false,
    lease_until timestamptz NOT NULL,
    holder text NOT NULL,
    step text,
    percent double precision NOT NULL DEFAULT 0,
    payload bytea,
    message bytea,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, task_id)
);
CREATE INDEX IF NOT EXISTS {index}_due ON {table} (app, lease_until)
    WHERE state IN ('running', 'queued') OR state = 'dead' AND NOT is_told;
CREATE INDEX IF NOT EXISTS {index}_over ON {table} (app, lease_until) WHERE state IN ('ended', 'waiting');
"""

_CLAIM = """
INSERT INTO {table} AS task
    (app, task_id, name, state, replaced, retries, priority, fence, lease_until, holder, message)
VALUES ($1, $2, $3, 'running', $4, $5, $6, 1, now() + make_interval(secs => $9), $7, $8)
ON CONFLICT (app, task_id) DO UPDATE SET
    state = 'running', name = excluded.name, replaced = excluded.replaced, retries = excluded.retries,
    priority = excluded.priority, fence = task.fence + 1, lease_until = excluded.lease_until,
    holder = excluded.holder, message = excluded.message, is_told = false, updated = now(),
    losses = CASE WHEN (task.replaced, task.retries) < (excluded.replaced, excluded.retries) THEN 0
        ELSE task.losses + (task.state = 'running')::int END,
    step = CASE WHEN task.replaced = excluded.replaced THEN task.step END,
    payload = CASE WHEN task.replaced = excluded.replaced THEN task.payload END,
    percent = CASE WHEN task.replaced = excluded.replaced THEN task.percent ELSE 0 END
WHERE (task.replaced, task.retries) < (excluded.replaced, excluded.retries)
        AND (task.state <> 'running' OR task.lease_until < now())
        AND (task.state <> 'ended' OR task.replaced < excluded.replaced)
    OR (task.replaced, task.retries) = (excluded.replaced, excluded.retries)
        AND (task.state = 'queued'
            OR task.state = 'running' AND task.lease_until < now() AND task.losses < $10)
RETURNING fence, losses, step, percent, payload
"""

# Not only while it is running: it may have given the task back since it was looked at.
_COMES_LATER = """
SELECT true FROM {table}
WHERE app = $1 AND task_id = $2 AND (replaced, retries) < ($3, $4) AND (state <> 'ended' OR replaced < $3)
"""

_RENEW = """
UPDATE {table} AS task SET lease_until = now() + make_interval(secs => $4)
FROM unnest($2::text[], $3::bigint[]) AS held (task_id, fence)
WHERE task.app = $1 AND task.task_id = held.task_id AND task.fence = held.fence AND task.state = 'running'
RETURNING task.task_id
"""

_SAVE = """
UPDATE {table} SET
    step = CASE WHEN percent <= $5 THEN $4 ELSE step END,
    payload = CASE WHEN percent <= $5 THEN $6 ELSE payload END,
    losses = CASE WHEN percent < $5 THEN 0 ELSE losses END,
    percent = greatest(percent, $5), lease_until = now() + make_interval(secs => $7), updated = now()
WHERE app = $1 AND task_id = $2 AND fence = $3 AND state = 'running'
RETURNING percent = $5 AS is_saved
"""

# The checkpoint stays while it waits: the retry goes on from there. The arguments do not.
_WAIT = """
UPDATE {table} SET
    state = 'waiting', fence = fence + 1, message = NULL, updated = now(),
    lease_until = now() + make_interval(secs => $4)
WHERE app = $1 AND task_id = $2 AND fence = $3 AND state = 'running'
RETURNING task_id
"""

_END = """
UPDATE {table} SET
    state = 'ended', fence = fence + 1, message = NULL, lease_until = now(), updated = now()
WHERE app = $1 AND task_id = $2 AND state <> 'ended' AND ($3::bigint IS NULL OR fence = $3 AND state = 'running')
RETURNING task_id
"""

_RELEASE = """
UPDATE {table} SET state = 'queued', lease_until = now() + make_interval(secs => $4), updated = now()
WHERE app = $1 AND task_id = $2 AND fence = $3 AND state IN ('running', 'queued')
RETURNING task_id
"""

_SWEEP = """
WITH due AS MATERIALIZED (
    SELECT task_id FROM {table}
    WHERE app = $1 AND lease_until < now()
        AND (state IN ('running', 'queued') OR state = 'dead' AND NOT is_told)
    ORDER BY priority DESC, created LIMIT $4 FOR UPDATE SKIP LOCKED
)
UPDATE {table} AS task SET
    state = CASE WHEN state = 'dead' OR state = 'running' AND losses >= $3 THEN 'dead' ELSE 'queued' END,
    losses = losses + (state = 'running')::int,
    fence = fence + 1, lease_until = now() + make_interval(secs => $2), updated = now()
FROM due WHERE task.app = $1 AND task.task_id = due.task_id
RETURNING task.*
"""

_TELL = """
UPDATE {table} SET is_told = true WHERE app = $1 AND task_id = $2 AND fence = $3 AND state = 'dead'
"""

_PURGE = """
WITH gone AS (
    DELETE FROM {table} WHERE app = $1 AND task_id = ANY (ARRAY(
        SELECT task_id FROM {table}
        WHERE app = $1 AND state IN ('ended', 'waiting') AND lease_until < now() - make_interval(secs => $2)
        LIMIT $3 FOR UPDATE SKIP LOCKED))
    RETURNING task_id
)
SELECT true FROM gone HAVING count(*) = $3
"""

_LIST = """
SELECT * FROM {table} WHERE app = $1 AND ($2::text IS NULL OR state = $2) ORDER BY updated DESC LIMIT $3
"""

_REQUEUE = """
UPDATE {table} SET
    state = 'queued', losses = 0, is_told = false, fence = fence + 1, updated = now(),
    lease_until = now() + make_interval(secs => $3)
WHERE app = $1 AND task_id = $2 AND state = 'dead'
RETURNING *
"""
