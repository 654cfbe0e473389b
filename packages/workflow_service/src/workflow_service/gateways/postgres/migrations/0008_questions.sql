-- A run can wait for the answers of a person. It is nobody's meanwhile: it has no lease and is in no queue.
ALTER TABLE workflow.runs
    -- What it waits for: a list of objects with "id" and "value".
    ADD COLUMN questions jsonb,
    -- All answers that were ever given, by the question's id. They stay: a worker may die before it has used one.
    ADD COLUMN answers   jsonb NOT NULL DEFAULT '{}',
    DROP CONSTRAINT runs_status,
    ADD CONSTRAINT runs_status CHECK (
        status IN ('queued', 'running', 'cancelling', 'waiting', 'succeeded', 'failed', 'cancelled', 'dead')
    ),
    ADD CONSTRAINT runs_waiting CHECK ((status = 'waiting') = (questions IS NOT NULL));

CREATE INDEX runs_waiting_for_answers ON workflow.runs (created_at) WHERE status = 'waiting';

ALTER TABLE workflow.run_events
    DROP CONSTRAINT run_events_kind,
    ADD CONSTRAINT run_events_kind CHECK (
        kind IN (
            'queued', 'started', 'progress', 'requeued', 'resumed', 'cancelling', 'waiting', 'answered',
            'succeeded', 'failed', 'cancelled', 'dead'
        )
    );
