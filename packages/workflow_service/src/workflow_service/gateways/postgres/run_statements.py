"""The statements of the run store. In each that changes a run, the event's number is taken from the run's row.

A change of one run writes its event and wakes who follows the run in the same statement: a round trip instead of
two, while the row is locked. Such a statement takes the event's parameters behind its own: kind, channel and data.

A claim is held while ``attempt`` is its own and there is a lease.

Time is the clock's, which goes on within a transaction, and while a statement waits for a lock. Those that look
for what is due take the statement's instead: it stands still, so an index finds the due ones without the others.
"""

import re

_COLUMNS = """
runs.id, runs.user_id, runs.workflow_name, runs.input_data, runs.options, runs.status, runs.attempt,
runs.created_at, runs.started_at, runs.finished_at, runs.error, runs.percent, runs.step, runs.cancel_mode,
runs.is_kept, runs.last_seq, runs.request_hash
"""

_PARAMETER = re.compile(r"\$(\d+)")


def _told(change: str, data: str = "") -> str:
    """Return a change of one run, an UPDATE that returns ``id`` and ``last_seq`` at least, with its event.

    ``data`` is the event's, as an expression of what the change returns; without it, a parameter.
    """
    taken = max(int(number) for number in _PARAMETER.findall(change))
    return f"""
WITH changed AS ({change}),
event AS (
    INSERT INTO workflow.run_events (run_id, seq, kind, data)
    SELECT id, last_seq, ${taken + 1}, {data or f"${taken + 3}::jsonb"} FROM changed
    RETURNING run_id
)
SELECT changed.*, pg_notify(${taken + 2}, event.run_id::text) FROM changed JOIN event ON event.run_id = changed.id
"""  # noqa: S608


CREATE = f"""
INSERT INTO workflow.runs (user_id, workflow_name, input_data, options, idempotency_key, request_hash, last_seq)
VALUES ($1, $2, $3, $4, $5, $6, 1)
ON CONFLICT (user_id, idempotency_key) DO NOTHING
RETURNING {_COLUMNS}
"""  # noqa: S608

GET = f"SELECT {_COLUMNS} FROM workflow.runs WHERE id = $1 AND user_id = $2"  # noqa: S608

# As bytes: nobody here looks into it, and it may be large.
RESULT = "SELECT convert_to(result::text, 'UTF8') FROM workflow.runs WHERE id = $1 AND user_id = $2"

GET_BY_KEY = f"SELECT {_COLUMNS} FROM workflow.runs WHERE user_id = $1 AND idempotency_key = $2"  # noqa: S608

LIST_RECENT = f"""
SELECT {_COLUMNS} FROM workflow.runs
WHERE user_id = $1
  AND ($3::uuid IS NULL
       OR (created_at, id) < (SELECT created_at, id FROM workflow.runs WHERE id = $3 AND user_id = $1))
  AND ($4::text[] IS NULL OR status = ANY ($4))
  AND ($5::text IS NULL OR workflow_name = $5)
ORDER BY created_at DESC, id DESC
LIMIT $2
"""  # noqa: S608

EVENTS = """
SELECT seq, kind, data, at
FROM workflow.run_events JOIN workflow.runs ON runs.id = run_events.run_id
WHERE run_id = $1 AND user_id = $2 AND seq > $3
ORDER BY seq
"""

CLAIM = _told(
    f"""
UPDATE workflow.runs
SET status = 'running',
    attempt = attempt + 1,
    losses = losses + (status = 'running')::int,
    lease_owner = $2,
    lease_until = clock_timestamp() + make_interval(secs => $3),
    started_at = coalesce(started_at, clock_timestamp()),
    last_seq = last_seq + 1
WHERE id = $1
  AND (
      (status = 'queued' AND available_at <= clock_timestamp())
      OR (status = 'running' AND lease_until < clock_timestamp() AND losses + 1 < $4)
  )
RETURNING {_COLUMNS}
""",  # noqa: S608
    "jsonb_build_object('attempt', attempt)",
)

RENEW = """
UPDATE workflow.runs
SET lease_until = clock_timestamp() + make_interval(secs => $3)
WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL
RETURNING cancel_mode
"""

HOLD = """
SELECT last_seq, percent, status, cancel_mode, losses FROM workflow.runs
WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL
FOR NO KEY UPDATE
"""

# Its step is looked for by the index, not by the statement's snapshot: the row may have been waited for meanwhile.
ADVANCE = """
WITH held AS (
    SELECT id, last_seq + 1 AS seq, greatest(percent, $4) AS percent FROM workflow.runs
    WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL
    FOR NO KEY UPDATE
), event AS (
    INSERT INTO workflow.run_events (run_id, seq, kind, step, data)
    SELECT id, seq, 'progress', $3, $5::jsonb || jsonb_build_object('percent', percent) FROM held
    ON CONFLICT (run_id, step) DO NOTHING
    RETURNING run_id
), advanced AS (
    UPDATE workflow.runs SET last_seq = held.seq, percent = held.percent, step = $3, losses = 0
    FROM held JOIN event ON event.run_id = held.id
    WHERE runs.id = held.id
    RETURNING runs.id
)
SELECT (SELECT pg_notify($6, id::text) FROM advanced), EXISTS (SELECT FROM advanced) AS is_new FROM held
"""

_ENDED = """
lease_owner = NULL, lease_until = NULL, finished_at = clock_timestamp(), last_seq = last_seq + 1
"""

SUCCEED = _told(f"""
UPDATE workflow.runs
SET status = 'succeeded', result = $3, percent = 100, is_kept = false, forget_at = clock_timestamp(), {_ENDED}
WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL
RETURNING id, last_seq
""")  # noqa: S608

# It may fail before its worker hears that it is to be rolled back: what was kept goes all the same.
FAIL = _told(f"""
UPDATE workflow.runs
SET status = 'failed', error = $3,
    is_kept = cancel_mode IS DISTINCT FROM 'rollback',
    forget_at = clock_timestamp() + make_interval(secs => CASE WHEN cancel_mode = 'rollback' THEN 0 ELSE $4 END),
    {_ENDED}
WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL
RETURNING id, last_seq
""")  # noqa: S608

# The three that follow are for a row that is locked and known to be in the right state.

DIE = _told(f"""
UPDATE workflow.runs
SET status = 'dead', error = $2, forget_at = clock_timestamp() + make_interval(secs => $3),
    losses = losses + 1, {_ENDED}
WHERE id = $1
RETURNING id, last_seq
""")  # noqa: S608

# A rollback that was asked for stays one, also when the run is killed in the end.
CANCEL = _told(f"""
UPDATE workflow.runs
SET status = 'cancelled', cancel_mode = $2,
    is_kept = 'rollback' NOT IN ($2, coalesce(cancel_mode, '')),
    forget_at = clock_timestamp()
        + make_interval(secs => CASE WHEN 'rollback' IN ($2, coalesce(cancel_mode, '')) THEN 0 ELSE $3 END),
    {_ENDED}
WHERE id = $1
RETURNING id, last_seq
""")  # noqa: S608

REQUEST_CANCEL = _told("""
UPDATE workflow.runs SET status = 'cancelling', cancel_mode = $2, last_seq = last_seq + 1
WHERE id = $1
RETURNING id, last_seq
""")

RELEASE = _told("""
UPDATE workflow.runs
SET status = 'queued', lease_owner = NULL, lease_until = NULL, sent_at = '-infinity', sent_count = 0,
    last_seq = last_seq + 1
WHERE id = $1
RETURNING id, last_seq
""")

PAUSE = _told("""
UPDATE workflow.runs
SET status = 'queued', lease_owner = NULL, lease_until = NULL, sent_at = '-infinity', sent_count = 0,
    losses = losses + 1, available_at = clock_timestamp() + make_interval(secs => $2), last_seq = last_seq + 1
WHERE id = $1
RETURNING id, last_seq
""")

RESUME = _told("""
UPDATE workflow.runs
SET status = 'queued', error = NULL, finished_at = NULL, cancel_mode = NULL, forget_at = NULL, losses = 0,
    available_at = '-infinity', sent_at = clock_timestamp(), sent_count = 1, last_seq = last_seq + 1
WHERE id = $1
RETURNING id, last_seq
""")

LOCK = f"SELECT {_COLUMNS} FROM workflow.runs WHERE id = $1 AND user_id = $2 FOR NO KEY UPDATE"  # noqa: S608

NOTIFY = "SELECT pg_notify($1, $2::uuid::text)"

GIVE_UP_KEEPING = "UPDATE workflow.runs SET is_kept = false, forget_at = clock_timestamp() WHERE id = $1"

DELETE = "DELETE FROM workflow.runs WHERE id = $1"

TAKE_FORGETTABLE = f"""
WITH due AS (
    SELECT id FROM workflow.runs
    WHERE forget_at <= statement_timestamp()
    ORDER BY forget_at
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE workflow.runs
SET is_kept = false, forget_at = clock_timestamp() + interval '1 minute'
FROM due
WHERE runs.id = due.id
RETURNING {_COLUMNS}
"""  # noqa: S608

# These two lock in the order of ids: two that have runs in common would end in a deadlock otherwise.

MARK_FORGOTTEN = """
WITH marked AS (
    SELECT id FROM workflow.runs WHERE id = ANY ($1::uuid[]) AND NOT is_kept ORDER BY id FOR NO KEY UPDATE
)
UPDATE workflow.runs SET forget_at = NULL FROM marked WHERE runs.id = marked.id
"""

MARK_UNSENT = """
WITH marked AS (
    SELECT id FROM workflow.runs WHERE id = ANY ($1::uuid[]) AND status = 'queued' ORDER BY id FOR NO KEY UPDATE
)
UPDATE workflow.runs SET sent_at = '-infinity', sent_count = 0 FROM marked WHERE runs.id = marked.id
"""

REQUEUE_LOST = """
WITH lost AS (
    SELECT id, CASE
        WHEN status = 'cancelling' THEN 'cancelled'
        WHEN losses + 1 < $2 THEN 'queued'
        ELSE 'dead'
    END AS now
    FROM workflow.runs
    WHERE lease_until < statement_timestamp()
    ORDER BY lease_until
    LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE workflow.runs
SET status = lost.now,
    error = CASE WHEN lost.now = 'dead' THEN $3::jsonb END,
    finished_at = CASE WHEN lost.now <> 'queued' THEN clock_timestamp() END,
    is_kept = lost.now <> 'cancelled' OR cancel_mode <> 'rollback',
    forget_at = CASE
        WHEN lost.now = 'queued' THEN NULL
        WHEN lost.now = 'cancelled' AND cancel_mode = 'rollback' THEN clock_timestamp()
        ELSE clock_timestamp() + make_interval(secs => $4)
    END,
    losses = losses + 1, lease_owner = NULL, lease_until = NULL,
    sent_at = clock_timestamp(), sent_count = 1, last_seq = last_seq + 1
FROM lost
WHERE runs.id = lost.id
RETURNING runs.id, runs.status, runs.last_seq, runs.cancel_mode
"""

RESEND = """
WITH waiting AS (
    SELECT id FROM workflow.runs
    WHERE status = 'queued' AND id <> ALL ($3::uuid[]) AND available_at <= clock_timestamp()
      AND sent_at < statement_timestamp() - make_interval(secs => $2)  -- what the index can tell
      AND sent_at < statement_timestamp() - make_interval(secs => $2 * power(2, least(sent_count - 1, 6)))
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

# For a run that the same statement makes, which the policy of its events would not see, and for many runs at once.
APPEND = """
WITH event AS (
    INSERT INTO workflow.run_events (run_id, seq, kind, data) VALUES ($1, $2, $3, $4)
    RETURNING run_id
)
SELECT pg_notify($5, run_id::text) FROM event
"""
