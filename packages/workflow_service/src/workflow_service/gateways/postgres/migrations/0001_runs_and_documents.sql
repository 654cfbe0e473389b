-- Users' files.
CREATE TABLE workflow.documents (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    text NOT NULL,
    filename   text NOT NULL,
    media_type text NOT NULL,
    size       bigint NOT NULL,
    sha256     text NOT NULL,
    content    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Most files are compressed formats: trying again on every write only costs time.
ALTER TABLE workflow.documents ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE INDEX documents_by_user ON workflow.documents (user_id, created_at DESC, id DESC);

-- One execution of a workflow. The row is the truth; a message in the broker only says «look here».
CREATE TABLE workflow.runs (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         text NOT NULL,
    workflow_name   text NOT NULL,
    input_data      jsonb NOT NULL,
    options         jsonb NOT NULL,
    status          text NOT NULL DEFAULT 'queued'
                    CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    -- The fencing token: each claim takes the next number, and only the holder of the last one may write.
    attempt         integer NOT NULL DEFAULT 0,
    lease_owner     text,
    lease_until     timestamptz,
    -- How many workers in a row have fallen silent over this run: a recorded step sets it back.
    losses          integer NOT NULL DEFAULT 0,
    -- When the broker was last told, and how often since the run was last (re)queued; -infinity: not yet told.
    sent_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_count      integer NOT NULL DEFAULT 1,
    -- The last event's number: taken under this row's lock, so numbers have no gaps and follow commit order.
    last_seq        integer NOT NULL DEFAULT 0,
    percent         smallint NOT NULL DEFAULT 0,
    idempotency_key text,
    request_hash    bytea NOT NULL,
    result          jsonb,
    error           jsonb,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at      timestamptz,
    finished_at     timestamptz,
    UNIQUE (user_id, idempotency_key),
    CHECK ((status = 'running') = (lease_until IS NOT NULL)),
    CHECK ((status = 'running') = (lease_owner IS NOT NULL)),
    CHECK ((status = 'succeeded') = (result IS NOT NULL)),
    CHECK ((status = 'failed') = (error IS NOT NULL)),
    CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
);

CREATE INDEX runs_by_user ON workflow.runs (user_id, created_at DESC, id DESC);
CREATE INDEX runs_by_lease ON workflow.runs (lease_until) WHERE status = 'running';
CREATE INDEX runs_by_sent_at ON workflow.runs (sent_at) WHERE status = 'queued';

-- What happened to a run, in order. `step` is set for progress only: a step is recorded once per run.
CREATE TABLE workflow.run_events (
    run_id uuid NOT NULL REFERENCES workflow.runs (id) ON DELETE CASCADE,
    seq    integer NOT NULL,
    kind   text NOT NULL
           CHECK (kind IN ('queued', 'started', 'progress', 'requeued', 'succeeded', 'failed', 'cancelled')),
    step   text,
    data   jsonb NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, seq),
    UNIQUE (run_id, step),
    CHECK ((kind = 'progress') = (step IS NOT NULL))
);
