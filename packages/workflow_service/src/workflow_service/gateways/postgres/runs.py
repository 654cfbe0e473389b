"""Runs and their events, kept in tables.

Every change of a run locks its row first, takes the next event number from it, and notifies those who follow the
run, all in one transaction: event numbers have no gaps, and a reader never sees a number before a smaller one.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from workflow_service.domain.run import (
    CancelMode,
    Claim,
    EventKind,
    JsonObject,
    NewRun,
    Progress,
    Question,
    Run,
    RunEvent,
    RunStatus,
    Standing,
)
from workflow_service.gateways.postgres import run_statements as sql
from workflow_service.gateways.postgres.connection import (
    Connect,
    Connection,
    encode_json,
    encode_json_aside,
    open_service_session,
    open_session,
)
from workflow_service.ports import ClaimLostError, IdempotencyConflictError, InvalidInputError, RunStateError

CHANNEL = "workflow_run"
"""NOTIFY channel of every change of a run; the payload is a run id."""

CANCEL_CHANNEL = "workflow_run_cancel"
"""NOTIFY channel for the workers: a run of theirs is to end, or has; the payload is a run id."""

MAX_LOSSES = 5
"""A run that so many attempts in a row were lost with, without a new step, is dead.

Lost: the worker fell silent, or what the run needs was away. A guess: enough for a bad day, few for a killer.
"""

PAUSE = 2.0
"""Seconds before another attempt when what a run needs was away; doubles with each loss, up to a minute."""

KEEP_FOR = 7 * 24 * 3600.0
"""Seconds for which a run that ended without success can be resumed."""

RESEND_AFTER = 5.0
"""Seconds until the broker is told again of a queued run; doubles with each telling, up to 64 times as long."""

_LONGEST_PAUSE = 60.0  # seconds
_EVENT_OF_LOSS = {
    RunStatus.QUEUED: EventKind.REQUEUED,
    RunStatus.CANCELLED: EventKind.CANCELLED,
    RunStatus.DEAD: EventKind.DEAD,
}


class PostgresRunStore:
    """Fits the RunStore port."""

    def __init__(
        self,
        connect: Connect,
        *,
        max_losses: int = MAX_LOSSES,
        resend_after: float = RESEND_AFTER,
        pause: float = PAUSE,
        keep_for: float = KEEP_FOR,
    ) -> None:
        """Keep runs in the database that ``connect`` lends connections to; the times are in seconds."""
        self._connect = connect
        self._max_losses = max_losses
        self._resend_after = resend_after
        self._pause = pause
        self._keep_for = keep_for

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        """Commit a queued run; with a key seen before, return that run and False instead.

        Raises:
            IdempotencyConflictError: The key was used for a different request. Nothing was written.
        """
        digest = _request_hash(new)
        async with open_session(self._connect, new.user_id) as connection:
            row = await connection.fetchrow(
                sql.CREATE,
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
            row = await connection.fetchrow(sql.GET_BY_KEY, new.user_id, new.idempotency_key)
        if row is None:  # deleted since
            return await self.create(new)
        if row["request_hash"] != digest:
            raise IdempotencyConflictError(
                f"idempotency key {new.idempotency_key!r} was used for a different request; take a new key"
            )
        return _run(row), False

    async def get(self, user_id: str, run_id: UUID) -> Run | None:
        """Return the user's run; None if there is none or it is another user's."""
        async with open_session(self._connect, user_id) as connection:
            row = await connection.fetchrow(sql.GET, run_id, user_id)
        return None if row is None else _run(row)

    async def result(self, user_id: str, run_id: UUID) -> bytes | None:
        """Return what the user's run returned, as JSON text in UTF-8; None if there is no such result."""
        async with open_session(self._connect, user_id) as connection:
            text: bytes | None = await connection.fetchval(sql.RESULT, run_id, user_id)
        return text

    async def list_recent(
        self,
        user_id: str,
        limit: int,
        before: UUID | None = None,
        *,
        statuses: Collection[RunStatus] = (),
        workflow_name: str | None = None,
    ) -> Sequence[Run]:
        """Return the user's runs, newest first, from the one after ``before`` (a run id: the cursor).

        Only those in one of ``statuses``, if any are given, and of the workflow, if one is named.

        Raises:
            InvalidInputError: The user has no run ``before``: it may have been deleted.
        """
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(
                sql.LIST_RECENT, user_id, limit, before, [*statuses] or None, workflow_name
            )
            if not rows and before is not None and await connection.fetchrow(sql.GET, before, user_id) is None:
                raise InvalidInputError(f"before: there is no run {before}; begin again without it")
        return [_run(row) for row in rows]

    async def events(self, user_id: str, run_id: UUID, after: int = 0) -> Sequence[RunEvent]:
        """Return the events of the user's run with ``seq > after``, in order."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(sql.EVENTS, run_id, user_id, after)
        return [RunEvent(run_id, row["seq"], EventKind(row["kind"]), row["data"], row["at"]) for row in rows]

    async def claim(self, run_id: UUID, worker_id: str, lease: float) -> Claim | None:
        """Take a queued run, or a running one whose lease is over, for ``lease`` seconds.

        Returns None when there is nothing to do: finished, unknown, pausing before another attempt, leased to a
        living worker, or lost so often that the next requeue_lost will give it up.
        """
        async with open_service_session(self._connect) as connection:
            row = await connection.fetchrow(
                sql.CLAIM, run_id, worker_id, lease, self._max_losses, EventKind.STARTED.value, CHANNEL
            )
        return None if row is None else Claim(_run(row), worker_id)

    async def renew(self, claim: Claim, lease: float) -> Standing:
        """Extend the lease, and say whether the run is to end; a claim that is not held must be let go."""
        async with open_session(self._connect, claim.run.user_id) as connection:
            row = await connection.fetchrow(sql.RENEW, claim.run.id, claim.run.attempt, lease)
        if row is None:
            return Standing(is_held=False)
        return Standing(is_held=True, cancel_mode=_mode(row["cancel_mode"]))

    async def record_progress(self, claim: Claim, progress: Progress) -> bool:
        """Persist a step once per run; False if that step stands already (a resumed run said it again).

        Raises:
            ClaimLostError: Another worker has claimed the run since. Nothing was written.
        """
        data = encode_json({"step": progress.step, "description": progress.description})
        held = (claim.run.id, claim.run.attempt)
        async with open_session(self._connect, claim.run.user_id) as connection:
            row = await connection.fetchrow(sql.ADVANCE, *held, progress.step, progress.percent, data, CHANNEL)
        if row is None:
            raise _claim_lost(claim)
        is_new: bool = row["is_new"]
        return is_new

    async def succeed(self, claim: Claim, result: JsonObject) -> None:
        """Store the result and end the run. Raises ClaimLostError as record_progress does.

        Raises:
            ValueError, TypeError: The result is no JSON. Nothing was written; the run is still held.
        """
        await self._end_claim(claim, sql.SUCCEED, EventKind.SUCCEEDED, result)

    async def fail(self, claim: Claim, error: JsonObject) -> None:
        """Store the error and end the run. Raises ClaimLostError as record_progress does."""
        await self._end_claim(claim, sql.FAIL, EventKind.FAILED, error, self._keep_for, data=error)

    async def release(self, claim: Claim) -> None:
        """Give a run back to the queue (a worker that is told to stop); one that is being cancelled ends.

        Raises ClaimLostError.
        """
        async with open_session(self._connect, claim.run.user_id) as connection:
            held = await _hold(connection, claim)
            if held["status"] == RunStatus.CANCELLING:
                await self._cancel(connection, claim.run.id, CancelMode(held["cancel_mode"]))
                return
            data = {"reason": "released"}
            await _change(connection, sql.RELEASE, claim.run.id, kind=EventKind.REQUEUED, data=data)

    async def cancel(self, claim: Claim) -> None:
        """End a run as cancelled, in the mode that was asked for. Raises ClaimLostError."""
        async with open_session(self._connect, claim.run.user_id) as connection:
            held = await _hold(connection, claim)
            await self._cancel(connection, claim.run.id, _mode(held["cancel_mode"]) or CancelMode.INTERRUPT)

    async def wait_for_answers(self, claim: Claim, questions: Sequence[Question]) -> None:
        """Let a run go until a person has answered; one that is being cancelled ends. Raises ClaimLostError.

        Raises:
            ValueError, TypeError: A question is no JSON. Nothing was written; the run is still held.
        """
        asked = [{"id": question.id, "value": question.value} for question in questions]
        text = encode_json(asked)
        async with open_session(self._connect, claim.run.user_id) as connection:
            held = await _hold(connection, claim)
            if held["status"] == RunStatus.CANCELLING:
                await self._cancel(connection, claim.run.id, CancelMode(held["cancel_mode"]))
                return
            waiting = (sql.WAIT, claim.run.id, text)
            await _change(connection, *waiting, kind=EventKind.WAITING, data={"questions": asked})

    async def retry_later(self, claim: Claim, error: JsonObject) -> bool:
        """Give a run back for another attempt after a pause that grows with each; False if it is dead now.

        Counts as a loss: after too many in a row without a new step the run is dead, with ``error``. One that is
        being cancelled ends. Raises ClaimLostError.
        """
        run_id = claim.run.id
        async with open_session(self._connect, claim.run.user_id) as connection:
            held = await _hold(connection, claim)
            if held["status"] == RunStatus.CANCELLING:
                await self._cancel(connection, run_id, CancelMode(held["cancel_mode"]))
            elif held["losses"] + 1 < self._max_losses:
                pause = min(self._pause * 2 ** held["losses"], _LONGEST_PAUSE)
                data = {"reason": "unavailable", "error": error, "pause": pause}
                await _change(connection, sql.PAUSE, run_id, pause, kind=EventKind.REQUEUED, data=data)
            else:
                dying = (sql.DIE, run_id, encode_json(error), self._keep_for)
                await _change(connection, *dying, kind=EventKind.DEAD, data=error)
                return False
        return True

    async def requeue_lost(self, limit: int) -> Sequence[UUID]:
        """Put runs whose lease is over back to queued, and return them with those queued too long ago.

        Runs another process is looking at are skipped, so any number of processes may call this.
        A run that was lost too often is dead instead: it may be what kills its workers. One that is being
        cancelled ends.
        """
        error = {
            "type": "WorkerLost",
            "message": f"{self._max_losses} attempts in a row were lost with this run; it waits for a person",
        }
        async with open_service_session(self._connect) as connection:
            lost = await connection.fetch(
                sql.REQUEUE_LOST, limit, self._max_losses, encode_json(error), self._keep_for
            )
            for row in lost:
                data: JsonObject = {"reason": "worker lost"}
                if row["status"] == RunStatus.DEAD:
                    data = error
                elif row["status"] == RunStatus.CANCELLED:
                    data = {"mode": row["cancel_mode"]}
                await _append(connection, row["id"], row["last_seq"], _EVENT_OF_LOSS[row["status"]], data)
            requeued = [row["id"] for row in lost if row["status"] == RunStatus.QUEUED]
            waiting = await connection.fetch(sql.RESEND, limit - len(lost), self._resend_after, requeued)
        return [*requeued, *(row["id"] for row in waiting)]

    async def request_cancel(self, user_id: str, run_id: UUID, mode: CancelMode) -> Run | None:
        """Tell a run to end, and return it; None if the user has no such run.

        A queued or waiting run ends at once, and any run does by KILL: whoever holds a claim on it holds it no
        longer. A run that is told again ends in the harder of the two modes.

        Raises:
            RunStateError: The run has ended. Nothing was changed.
        """
        async with open_session(self._connect, user_id) as connection:
            run = await _lock(connection, user_id, run_id)
            if run is None:
                return None
            if run.status.is_final:
                raise RunStateError(f"the run has ended already: it is {run.status}", run.status)
            is_nobodys = run.status in (RunStatus.QUEUED, RunStatus.WAITING)
            if is_nobodys or mode is CancelMode.KILL:
                await self._cancel(connection, run_id, mode)
            elif run.cancel_mode is None or _is_harder(mode, run.cancel_mode):
                asked = (sql.REQUEST_CANCEL, run_id, mode.value)
                await _change(connection, *asked, kind=EventKind.CANCELLING, data={"mode": mode.value})
            else:
                return run
            if not is_nobodys:
                await connection.execute(sql.NOTIFY, CANCEL_CHANNEL, run_id)
            return await _lock(connection, user_id, run_id)

    async def resume(self, user_id: str, run_id: UUID) -> Run | None:
        """Queue a run that ended without success, to go on after its last whole step; None as request_cancel.

        Raises:
            RunStateError: The run has not ended, has succeeded, or nothing is kept of it. Nothing was changed.
        """
        async with open_session(self._connect, user_id) as connection:
            run = await _lock(connection, user_id, run_id)
            if run is None:
                return None
            if not run.can_resume:
                why = "nothing is kept of it" if run.status.is_final and not run.is_kept else f"it is {run.status}"
                raise RunStateError(f"the run cannot be resumed: {why}", run.status)
            data = {"from": run.status.value}
            await _change(connection, sql.RESUME, run_id, kind=EventKind.RESUMED, data=data)
            return await _lock(connection, user_id, run_id)

    async def answer(self, user_id: str, run_id: UUID, answers: JsonObject) -> Run | None:
        """Queue a waiting run, to go on with the answers to its questions, by their ids; None as request_cancel.

        Raises:
            RunStateError: The run does not wait. Nothing was changed.
            InvalidInputError: No answer, or one to a question that the run does not ask. Nothing was changed.
        """
        async with open_session(self._connect, user_id) as connection:
            run = await _lock(connection, user_id, run_id)
            if run is None:
                return None
            if run.status is not RunStatus.WAITING:
                raise RunStateError(f"the run waits for no answer: it is {run.status}", run.status)
            asked = ", ".join(question.id for question in run.questions)
            if not answers:
                raise InvalidInputError(f"the run waits for answers to {asked}; give at least one")
            for unknown in sorted(answers.keys() - {question.id for question in run.questions}):
                message = f"is not the id of a question that the run asks now; it asks {asked}"
                raise InvalidInputError(f"answers.{unknown} {message}", [(f"answers.{unknown}", message)])
            answering = (sql.ANSWER, run_id, encode_json(answers))
            await _change(connection, *answering, kind=EventKind.ANSWERED, data={"answers": answers})
            return await _lock(connection, user_id, run_id)

    async def give_up_keeping(self, user_id: str, run_id: UUID) -> Run | None:
        """Have an ended run's checkpoints removed: it cannot be resumed from now on. None as request_cancel.

        Raises:
            RunStateError: The run has not ended. Nothing was changed.
        """
        async with open_session(self._connect, user_id) as connection:
            run = await _lock(connection, user_id, run_id)
            if run is None:
                return None
            _refuse_unended(run)
            await connection.execute(sql.GIVE_UP_KEEPING, run_id)
            return await _lock(connection, user_id, run_id)

    async def delete(self, user_id: str, run_id: UUID) -> bool:
        """Remove an ended run and its events; False if the user has no such run. Forget it first.

        Raises:
            RunStateError: The run has not ended. Nothing was changed.
        """
        async with open_session(self._connect, user_id) as connection:
            run = await _lock(connection, user_id, run_id)
            if run is None:
                return False
            _refuse_unended(run)
            await connection.execute(sql.DELETE, run_id)
            await connection.execute(sql.NOTIFY, CHANNEL, run_id)
        return True

    async def take_forgettable(self, limit: int) -> Sequence[Run]:
        """Return ended runs whose checkpoints are to be removed; they can no longer be resumed.

        The same run is returned again after a minute unless mark_forgotten names it: its taker may have died.
        """
        async with open_service_session(self._connect) as connection:
            rows = await connection.fetch(sql.TAKE_FORGETTABLE, limit)
        return [_run(row) for row in rows]

    async def mark_forgotten(self, run_ids: Sequence[UUID]) -> None:
        """Note that nothing is kept of these runs any more."""
        async with open_service_session(self._connect) as connection:
            await connection.execute(sql.MARK_FORGOTTEN, run_ids)

    async def mark_unsent(self, run_ids: Sequence[UUID]) -> None:
        """Note that the broker did not take these queued runs: the next requeue_lost returns them again."""
        async with open_service_session(self._connect) as connection:
            await connection.execute(sql.MARK_UNSENT, run_ids)

    async def _end_claim(
        self,
        claim: Claim,
        statement: str,
        kind: EventKind,
        value: JsonObject,
        *parameters: float,
        data: JsonObject | None = None,
    ) -> None:
        text = await encode_json_aside(value)  # a large result takes long, and leases are renewed meanwhile
        async with open_session(self._connect, claim.run.user_id) as connection:
            held = (claim.run.id, claim.run.attempt)
            if not await _change(connection, statement, *held, text, *parameters, kind=kind, data=data or {}):
                raise _claim_lost(claim)

    async def _cancel(self, connection: Connection, run_id: UUID, mode: CancelMode) -> None:
        cancelling = (sql.CANCEL, run_id, mode.value, self._keep_for)
        await _change(connection, *cancelling, kind=EventKind.CANCELLED, data={"mode": mode.value})


async def _lock(connection: Connection, user_id: str, run_id: UUID) -> Run | None:
    row = await connection.fetchrow(sql.LOCK, run_id, user_id)
    return None if row is None else _run(row)


async def _hold(connection: Connection, claim: Claim) -> asyncpg.Record:
    held = await connection.fetchrow(sql.HOLD, claim.run.id, claim.run.attempt)
    if held is None:
        raise _claim_lost(claim)
    return held


def _mode(text: str | None) -> CancelMode | None:
    return None if text is None else CancelMode(text)


def _is_harder(mode: CancelMode, than: CancelMode) -> bool:
    order = list(CancelMode)
    return order.index(mode) > order.index(than)


def _refuse_unended(run: Run) -> None:
    if not run.status.is_final:
        raise RunStateError(f"the run has not ended: it is {run.status}; cancel it first", run.status)


async def _change(
    connection: Connection,
    statement: str,
    *parameters: Any,  # Any: each statement's own
    kind: EventKind,
    data: JsonObject,
) -> bool:
    """Change a run, write the event of it and wake those who follow the run; False if there is no such run."""
    row = await connection.fetchrow(statement, *parameters, kind.value, CHANNEL, encode_json(data))
    return row is not None


async def _append(connection: Connection, run_id: UUID, seq: int, kind: EventKind, data: JsonObject) -> None:
    """Write the event whose number the run's row has, and wake those who follow the run."""
    await connection.execute(sql.APPEND, run_id, seq, kind.value, encode_json(data), CHANNEL)


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
    values["cancel_mode"] = _mode(row["cancel_mode"])
    values["questions"] = tuple(Question(**question) for question in row["questions"] or ())
    return Run(**values)
