-- A run can be told to end, can be dead, and can be resumed as long as what it needs for going on is kept.
ALTER TABLE workflow.runs
    -- The last recorded step; `percent` belongs to it.
    ADD COLUMN step         text,
    -- How the run was told to end; kept when it has.
    ADD COLUMN cancel_mode  text CHECK (cancel_mode IN ('drain', 'interrupt', 'rollback', 'kill')),
    -- A queued run is claimed from then on: the pause before another attempt.
    ADD COLUMN available_at timestamptz NOT NULL DEFAULT '-infinity',
    -- Whether the run could go on: its checkpoints are there, or it has not begun.
    ADD COLUMN is_kept      boolean NOT NULL DEFAULT true,
    -- When the checkpoints of an ended run are to be removed; NULL: not ended, or removed.
    ADD COLUMN forget_at    timestamptz,
    DROP CONSTRAINT runs_status_check,
    DROP CONSTRAINT runs_check,
    DROP CONSTRAINT runs_check1,
    DROP CONSTRAINT runs_check2,
    DROP CONSTRAINT runs_check3,
    DROP CONSTRAINT runs_check4;

-- Until now checkpoints were removed when a run ended. Row security binds whoever migrates, too.
ALTER TABLE workflow.runs NO FORCE ROW LEVEL SECURITY;
UPDATE workflow.runs SET is_kept = false WHERE finished_at IS NOT NULL;
ALTER TABLE workflow.runs FORCE ROW LEVEL SECURITY;

ALTER TABLE workflow.runs
    ADD CONSTRAINT runs_status CHECK (
        status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled', 'dead')
    ),
    ADD CONSTRAINT runs_leased CHECK (
        (status IN ('running', 'cancelling')) = (lease_until IS NOT NULL)
        AND (lease_until IS NOT NULL) = (lease_owner IS NOT NULL)
    ),
    ADD CONSTRAINT runs_result CHECK ((status = 'succeeded') = (result IS NOT NULL)),
    ADD CONSTRAINT runs_error CHECK ((status IN ('failed', 'dead')) = (error IS NOT NULL)),
    ADD CONSTRAINT runs_finished CHECK (
        (status IN ('succeeded', 'failed', 'cancelled', 'dead')) = (finished_at IS NOT NULL)
    ),
    ADD CONSTRAINT runs_cancelling CHECK (status <> 'cancelling' OR cancel_mode IS NOT NULL),
    ADD CONSTRAINT runs_forgotten CHECK (forget_at IS NULL OR finished_at IS NOT NULL);

DROP INDEX workflow.runs_by_lease;
CREATE INDEX runs_by_lease ON workflow.runs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX runs_by_forget_at ON workflow.runs (forget_at) WHERE forget_at IS NOT NULL;

ALTER TABLE workflow.run_events
    DROP CONSTRAINT run_events_kind_check,
    ADD CONSTRAINT run_events_kind CHECK (
        kind IN (
            'queued', 'started', 'progress', 'requeued', 'resumed', 'cancelling',
            'succeeded', 'failed', 'cancelled', 'dead'
        )
    );
