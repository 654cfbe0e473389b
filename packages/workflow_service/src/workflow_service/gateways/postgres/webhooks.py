"""Webhook deliveries, kept in a table; a trigger writes one with the final event of a run that asks for it."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from workflow_service.domain.webhook import Delivery, DeliveryStatus, DueDelivery, Outcome
from workflow_service.gateways.postgres.connection import Connect, open_service_session, open_session


class PostgresWebhookStore:
    """Fits the WebhookStore port."""

    def __init__(self, connect: Connect) -> None:
        """Keep deliveries in the database that ``connect`` lends connections to."""
        self._connect = connect

    async def take_due(
        self, limit: int, per_user: int, under_way: Mapping[str, int], lease: float
    ) -> Sequence[DueDelivery]:
        """Return deliveries to be sent now; each is due again after ``lease`` seconds unless its outcome is told.

        Deliveries another process is looking at are skipped, so any number of processes may call this.
        """
        full = [user_id for user_id, count in under_way.items() if count >= per_user]
        users, counts = [*under_way], [*under_way.values()]
        async with open_service_session(self._connect) as connection:
            rows = await connection.fetch(_TAKE_DUE, limit, per_user, full, lease, users, counts)
        return [
            DueDelivery(row["id"], row["user_id"], row["url"], row["body"].encode(), row["attempts"])
            for row in rows
        ]

    async def record(self, delivery: DueDelivery, outcome: Outcome, pause: float | None) -> None:
        """Write down an attempt's outcome; after ``pause`` seconds it is sent again, None is the end of it.

        The outcome of an attempt that another one has overtaken is dropped.
        """
        status = DeliveryStatus.PENDING
        if pause is None:
            status = DeliveryStatus.DELIVERED if outcome.error is None else DeliveryStatus.FAILED
        async with open_session(self._connect, delivery.user_id) as connection:
            await connection.execute(
                _RECORD, delivery.id, delivery.attempt, status.value, pause, outcome.status, outcome.error
            )

    async def list_recent(
        self,
        user_id: str,
        limit: int,
        before: UUID | None = None,
        run_id: UUID | None = None,
        status: DeliveryStatus | None = None,
    ) -> Sequence[Delivery]:
        """Return the user's deliveries, newest first, from the one after ``before`` (an id: the cursor)."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(_LIST_RECENT, user_id, limit, before, run_id, status and status.value)
        return [_delivery(row) for row in rows]

    async def send_again(self, user_id: str, delivery_id: UUID) -> Delivery | None:
        """Make the user's delivery due now; None if there is none. One that has ended begins anew."""
        async with open_session(self._connect, user_id) as connection:
            row = await connection.fetchrow(_SEND_AGAIN, delivery_id, user_id)
        return None if row is None else _delivery(row)


def _delivery(row: asyncpg.Record) -> Delivery:
    return Delivery(**{**row, "status": DeliveryStatus(row["status"])})


_COLUMNS = """
id, run_id, event, url, status, attempts, created_at, next_attempt_at, finished_at, last_status, last_error
"""

# The first thousand that are due, a few of each user. The statement's time: by the clock's no index finds them.
_TAKE_DUE = """
WITH waiting AS (
    SELECT id, user_id, next_attempt_at FROM workflow.webhook_deliveries
    WHERE next_attempt_at <= statement_timestamp() AND user_id <> ALL ($3::text[])
    ORDER BY next_attempt_at
    LIMIT 1000
), ranked AS (
    SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY next_attempt_at, id)
               + coalesce((SELECT count FROM unnest($5::text[], $6::bigint[]) AS under_way (who, count)
                           WHERE who = user_id), 0) AS place
    FROM waiting
), due AS (
    SELECT id FROM workflow.webhook_deliveries
    WHERE id IN (SELECT id FROM ranked WHERE place <= $2) AND next_attempt_at <= clock_timestamp()
    ORDER BY next_attempt_at
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE workflow.webhook_deliveries AS delivery
SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + make_interval(secs => $4)
FROM due
WHERE delivery.id = due.id
RETURNING delivery.id, delivery.user_id, delivery.url, delivery.body::text AS body, delivery.attempts
"""

_RECORD = """
UPDATE workflow.webhook_deliveries
SET status = $3,
    next_attempt_at = clock_timestamp() + make_interval(secs => $4),
    finished_at = CASE WHEN $4::float8 IS NULL THEN clock_timestamp() END,
    last_status = $5,
    last_error = $6
WHERE id = $1 AND attempts = $2 AND status = 'pending'
"""

_LIST_RECENT = f"""
SELECT {_COLUMNS} FROM workflow.webhook_deliveries
WHERE user_id = $1
  AND ($3::uuid IS NULL OR (created_at, id) < (
      SELECT created_at, id FROM workflow.webhook_deliveries WHERE id = $3 AND user_id = $1
  ))
  AND ($4::uuid IS NULL OR run_id = $4)
  AND ($5::text IS NULL OR status = $5)
ORDER BY created_at DESC, id DESC
LIMIT $2
"""  # noqa: S608

_SEND_AGAIN = f"""
UPDATE workflow.webhook_deliveries
SET status = 'pending', attempts = CASE WHEN status = 'pending' THEN attempts ELSE 0 END,
    next_attempt_at = clock_timestamp(), finished_at = NULL
WHERE id = $1 AND user_id = $2
RETURNING {_COLUMNS}
"""  # noqa: S608
