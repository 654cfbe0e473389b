"""Runs and their events, kept in tables.

Every change of a run locks its row first, takes the next event number from it, and notifies those who follow the
run, all in one transaction: event numbers have no gaps, and a reader never sees a number before a smaller one.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from workflow_service.domain.run import Claim, EventKind, JsonObject, NewRun, Progress, Run, RunEvent, RunStatus
from workflow_service.gateways.postgres.connection import (
    Connect,
    Connection,
    encode_json,
    open_service_session,
    open_session,
)
from workflow_service.ports import ClaimLostError, IdempotencyConflictError

CHANNEL = "workflow_run"
"""NOTIFY channel; the payload is a run id."""

MAX_LOSSES = 5
"""A run that this many workers in a row fell silent over, without a new step, is failed.

A guess: enough for a bad day, few for a killer.
"""

RESEND_AFTER = 5.0
"""Seconds until the broker is told again of a queued run; doubles with each telling, up to 64 times as long."""


class PostgresRunStore:
    """Fits the RunStore port."""

    def __init__(
        self, connect: Connect, *, max_losses: int = MAX_LOSSES, resend_after: float = RESEND_AFTER
    ) -> None:
        """Keep runs in the database that ``connect`` lends connections to; ``resend_after`` is in seconds."""
        self._connect = connect
        self._max_losses = max_losses
        self._resend_after = resend_after

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        """Commit a queued run; with a key seen before, return that run and False instead.

        Raises:
            IdempotencyConflictError: The key was used for a different request. Nothing was written.
        """
        digest = _request_hash(new)
        async with open_session(self._connect, new.user_id) as connection:
            row = await connection.fetchrow(
                _CREATE,
                new.user_id,
                new.workflow_name,
                encode_json(new.input_data),
                encode_json(new.options),
                new.idempotency_key,
                digest,
            )
            if row is not None:
                await _append(connection, row["id"], 1, EventKind.QUEUED, {})
                return _run(row), True
            # The INSERT waited for the transaction that holds the key, so this statement sees its run.
            row = await connection.fetchrow(_GET_BY_KEY, new.user_id, new.idempotency_key)
        assert row is not None  # runs are never deleted
        if row["request_hash"] != digest:
            raise IdempotencyConflictError(
                f"idempotency key {new.idempotency_key!r} was used for a different request; take a new key"
            )
        return _run(row), False

    async def get(self, user_id: str, run_id: UUID) -> Run | None:
        """Return the user's run; None if there is none or it is another user's."""
        async with open_session(self._connect, user_id) as connection:
            row = await connection.fetchrow(_GET, run_id, user_id)
        return None if row is None else _run(row)

    async def result(self, user_id: str, run_id: UUID) -> bytes | None:
        """Return what the user's run returned, as JSON text in UTF-8; None if there is no such result."""
        async with open_session(self._connect, user_id) as connection:
            text: bytes | None = await connection.fetchval(_RESULT, run_id, user_id)
        return text

    async def list_recent(self, user_id: str, limit: int, before: UUID | None = None) -> Sequence[Run]:
        """Return the user's runs, newest first, from the one after ``before`` (a run id: the cursor)."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(_LIST_RECENT, user_id, limit, before)
        return [_run(row) for row in rows]

    async def events(self, user_id: str, run_id: UUID, after: int = 0) -> Sequence[RunEvent]:
        """Return the events of the user's run with ``seq > after``, in order."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(_EVENTS, run_id, user_id, after)
        return [RunEvent(run_id, row["seq"], EventKind(row["kind"]), row["data"], row["at"]) for row in rows]

    async def claim(self, run_id: UUID, worker_id: str, lease: float) -> Claim | None:
        """Take a queued run, or a running one whose lease is over, for ``lease`` seconds.

        Returns None when there is nothing to do: finished, unknown, leased to a living worker, or lost so often
        that the next requeue_lost will fail it.
        """
        async with open_service_session(self._connect) as connection:
            row = await connection.fetchrow(_CLAIM, run_id, worker_id, lease, self._max_losses)
            if row is None:
                return None
            run = _run(row)
            await _append(connection, run_id, row["last_seq"], EventKind.STARTED, {"attempt": run.attempt})
        return Claim(run, worker_id)

    async def renew(self, claim: Claim, lease: float) -> bool:
        """Extend the lease; False means the claim is outdated and its holder must stop."""
        async with open_session(self._connect, claim.run.user_id) as connection:
            return await connection.fetchval(_RENEW, claim.run.id, claim.run.attempt, lease) is not None

    async def record_progress(self, claim: Claim, progress: Progress) -> bool:
        """Persist a step once per run; False if that step stands already (a resumed run said it again).

        Raises:
            ClaimLostError: Another worker has claimed the run since. Nothing was written.
        """
        async with open_session(self._connect, claim.run.user_id) as connection:
            held = await connection.fetchrow(_HOLD, claim.run.id, claim.run.attempt)
            if held is None:
                raise _claim_lost(claim)
            if await connection.fetchval(_HAS_STEP, claim.run.id, progress.step):
                return False
            percent = max(held["percent"], progress.percent)
            seq = held["last_seq"] + 1
            await connection.execute(_ADVANCE, claim.run.id, seq, percent)
            data = {"step": progress.step, "percent": percent, "description": progress.description}
            await _append(connection, claim.run.id, seq, EventKind.PROGRESS, data, progress.step)
        return True

    async def succeed(self, claim: Claim, result: JsonObject) -> None:
        """Store the result and end the run. Raises ClaimLostError as record_progress does.

        Raises:
            ValueError, TypeError: The result is no JSON. Nothing was written; the run is still held.
        """
        await self._end_claim(claim, _SUCCEED, EventKind.SUCCEEDED, result)

    async def fail(self, claim: Claim, error: JsonObject) -> None:
        """Store the error and end the run. Raises ClaimLostError as record_progress does."""
        await self._end_claim(claim, _FAIL, EventKind.FAILED, error, data=error)

    async def release(self, claim: Claim) -> None:
        """Give a run back to the queue (a worker that is told to stop). Raises ClaimLostError."""
        await self._end_claim(claim, _RELEASE, EventKind.REQUEUED, data={"reason": "released"})

    async def requeue_lost(self, limit: int) -> Sequence[UUID]:
        """Put runs whose lease is over back to queued, and return them with those queued too long ago.

        Runs another process is looking at are skipped, so any number of processes may call this.
        A run that was lost too often is failed instead: it may be what kills its workers.
        """
        error = {
            "type": "WorkerLost",
            "message": f"{self._max_losses} workers in a row fell silent over this run; it was given up",
        }
        async with open_service_session(self._connect) as connection:
            lost = await connection.fetch(_REQUEUE_LOST, limit, self._max_losses, encode_json(error))
            for row in lost:
                if row["status"] == RunStatus.FAILED:
                    await _append(connection, row["id"], row["last_seq"], EventKind.FAILED, error)
                else:
                    await _append(
                        connection, row["id"], row["last_seq"], EventKind.REQUEUED, {"reason": "worker lost"}
                    )
            requeued = [row["id"] for row in lost if row["status"] == RunStatus.QUEUED]
            waiting = await connection.fetch(_RESEND, limit - len(lost), self._resend_after, requeued)
        return [*requeued, *(row["id"] for row in waiting)]

    async def mark_unsent(self, run_ids: Sequence[UUID]) -> None:
        """Note that the broker did not take these queued runs: the next requeue_lost returns them again."""
        async with open_service_session(self._connect) as connection:
            await connection.execute(_MARK_UNSENT, run_ids)

    async def _end_claim(
        self, claim: Claim, statement: str, kind: EventKind, *values: JsonObject, data: JsonObject | None = None
    ) -> None:
        # On a thread: a large result takes long, and the lease is to be renewed meanwhile.
        parameters = [await asyncio.to_thread(encode_json, value) for value in values]
        async with open_session(self._connect, claim.run.user_id) as connection:
            seq = await connection.fetchval(statement, claim.run.id, claim.run.attempt, *parameters)
            if seq is None:
                raise _claim_lost(claim)
            await _append(connection, claim.run.id, seq, kind, data or {})


async def _append(
    connection: Connection, run_id: UUID, seq: int, kind: EventKind, data: JsonObject, step: str | None = None
) -> None:
    """Write the event whose number was just taken from the run's row, and wake those who follow the run."""
    await connection.execute(_APPEND, run_id, seq, kind.value, step, encode_json(data), CHANNEL)


def _claim_lost(claim: Claim) -> ClaimLostError:
    return ClaimLostError(
        f"attempt {claim.run.attempt} of run {claim.run.id} by worker {claim.worker_id!r} is outdated; "
        "stop working on it"
    )


def _request_hash(new: NewRun) -> bytes:
    request = [new.workflow_name, new.input_data, new.options]
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()


def _run(row: asyncpg.Record) -> Run:
    values: dict[str, Any] = {name: row[name] for name in Run.__dataclass_fields__}  # Any: one type per column
    values["status"] = RunStatus(row["status"])
    return Run(**values)


_COLUMNS = """
runs.id, runs.user_id, runs.workflow_name, runs.input_data, runs.options, runs.status, runs.attempt,
runs.created_at, runs.started_at, runs.finished_at, runs.error, runs.last_seq, runs.request_hash
"""

_CREATE = f"""
INSERT INTO workflow.runs (user_id, workflow_name, input_data, options, idempotency_key, request_hash, last_seq)
VALUES ($1, $2, $3, $4, $5, $6, 1)
ON CONFLICT (user_id, idempotency_key) DO NOTHING
RETURNING {_COLUMNS}
"""  # noqa: S608

_GET = f"SELECT {_COLUMNS} FROM workflow.runs WHERE id = $1 AND user_id = $2"  # noqa: S608

# As bytes: nobody here looks into it, and it may be large.
_RESULT = "SELECT convert_to(result::text, 'UTF8') FROM workflow.runs WHERE id = $1 AND user_id = $2"

_GET_BY_KEY = f"SELECT {_COLUMNS} FROM workflow.runs WHERE user_id = $1 AND idempotency_key = $2"  # noqa: S608

_LIST_RECENT = f"""
SELECT {_COLUMNS} FROM workflow.runs
WHERE user_id = $1
  AND ($3::uuid IS NULL
       OR (created_at, id) < (SELECT created_at, id FROM workflow.runs WHERE id = $3 AND user_id = $1))
ORDER BY created_at DESC, id DESC
LIMIT $2
"""  # noqa: S608

_EVENTS = """
SELECT seq, kind, data, at
FROM workflow.run_events JOIN workflow.runs ON runs.id = run_events.run_id
WHERE run_id = $1 AND user_id = $2 AND seq > $3
ORDER BY seq
"""

_CLAIM = f"""
UPDATE workflow.runs
SET status = 'running',
    attempt = attempt + 1,
    losses = losses + (status = 'running')::int,
    lease_owner = $2,
    lease_until = clock_timestamp() + make_interval(secs => $3),
    started_at = coalesce(started_at, clock_timestamp()),
    last_seq = last_seq + 1
WHERE id = $1
  AND (status = 'queued' OR (status = 'running' AND lease_until < clock_timestamp() AND losses + 1 < $4))
RETURNING {_COLUMNS}
"""  # noqa: S608

_RENEW = """
UPDATE workflow.runs
SET lease_until = clock_timestamp() + make_interval(secs => $3)
WHERE id = $1 AND attempt = $2 AND status = 'running'
RETURNING id
"""

_HOLD = """
SELECT last_seq, percent FROM workflow.runs
WHERE id = $1 AND attempt = $2 AND status = 'running'
FOR NO KEY UPDATE
"""

_HAS_STEP = "SELECT EXISTS (SELECT FROM workflow.run_events WHERE run_id = $1 AND step = $2)"

_ADVANCE = "UPDATE workflow.runs SET last_seq = $2, percent = $3, losses = 0 WHERE id = $1"

_SUCCEED = """
UPDATE workflow.runs
SET status = 'succeeded', result = $3, lease_owner = NULL, lease_until = NULL, percent = 100,
    finished_at = clock_timestamp(), last_seq = last_seq + 1
WHERE id = $1 AND attempt = $2 AND status = 'running'
RETURNING last_seq
"""

_FAIL = """
UPDATE workflow.runs
SET status = 'failed', error = $3, lease_owner = NULL, lease_until = NULL,
    finished_at = clock_timestamp(), last_seq = last_seq + 1
WHERE id = $1 AND attempt = $2 AND status = 'running'
RETURNING last_seq
"""

_RELEASE = """
UPDATE workflow.runs
SET status = 'queued', lease_owner = NULL, lease_until = NULL, sent_at = '-infinity', sent_count = 0,
    last_seq = last_seq + 1
WHERE id = $1 AND attempt = $2 AND status = 'running'
RETURNING last_seq
"""

_REQUEUE_LOST = """
WITH lost AS (
    SELECT id FROM workflow.runs
    WHERE status = 'running' AND lease_until < clock_timestamp()
    ORDER BY lease_until
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE workflow.runs
SET status = CASE WHEN losses + 1 < $2 THEN 'queued' ELSE 'failed' END,
    error = CASE WHEN losses + 1 < $2 THEN NULL ELSE $3::jsonb END,
    finished_at = CASE WHEN losses + 1 < $2 THEN NULL ELSE clock_timestamp() END,
    losses = losses + 1, lease_owner = NULL, lease_until = NULL,
    sent_at = clock_timestamp(), sent_count = 1, last_seq = last_seq + 1
FROM lost
WHERE runs.id = lost.id
RETURNING runs.id, runs.status, runs.last_seq
"""

_RESEND = """
WITH waiting AS (
    SELECT id FROM workflow.runs
    WHERE status = 'queued' AND id <> ALL ($3::uuid[])
      AND sent_at < clock_timestamp() - make_interval(secs => $2 * power(2, least(sent_count - 1, 6)))
    ORDER BY sent_at
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE workflow.runs
SET sent_at = clock_timestamp(), sent_count = sent_count + 1
FROM waiting
WHERE runs.id = waiting.id
RETURNING runs.id
"""

_MARK_UNSENT = """
UPDATE workflow.runs SET sent_at = '-infinity', sent_count = 0
WHERE id = ANY ($1::uuid[]) AND status = 'queued'
"""

_APPEND = """
WITH event AS (
    INSERT INTO workflow.run_events (run_id, seq, kind, step, data)
    VALUES ($1, $2, $3, $4, $5)
    RETURNING run_id
)
SELECT pg_notify($6, run_id::text) FROM event
"""
