-- What a run's owner is told when it has ended: one row for each time it ends, sent until a receiver takes it.
CREATE TABLE workflow.webhook_deliveries (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id          uuid NOT NULL REFERENCES workflow.runs (id) ON DELETE CASCADE,
    -- The final event; a run that was resumed ends again, with another number.
    seq             integer NOT NULL,
    user_id         text NOT NULL,
    url             text NOT NULL,
    event           text NOT NULL,
    body            jsonb NOT NULL,
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    -- While an attempt is under way: when it is taken for lost.
    next_attempt_at timestamptz DEFAULT clock_timestamp(),
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    UNIQUE (run_id, seq),
    CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK ((status = 'pending') = (finished_at IS NULL))
);

CREATE INDEX webhook_deliveries_by_due ON workflow.webhook_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX webhook_deliveries_by_user ON workflow.webhook_deliveries (user_id, created_at DESC, id DESC);

-- In the transaction of the ending, whoever ends the run: a worker, a cancellation, the reaper.
CREATE FUNCTION workflow.queue_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO workflow.webhook_deliveries (run_id, seq, user_id, url, event, body)
    SELECT runs.id, NEW.seq, runs.user_id, runs.options ->> 'webhook_url', 'run.' || NEW.kind,
           jsonb_build_object(
               'type', 'run.' || NEW.kind,
               'timestamp', to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'data', jsonb_build_object(
                   'run_id', runs.id,
                   'workflow_name', runs.workflow_name,
                   'status', NEW.kind,
                   'seq', NEW.seq,
                   'attempt', runs.attempt,
                   'error', runs.error
               )
           )
    FROM workflow.runs
    WHERE runs.id = NEW.run_id AND runs.options ->> 'webhook_url' IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER webhook_of_ending AFTER INSERT ON workflow.run_events
FOR EACH ROW WHEN (NEW.kind IN ('succeeded', 'failed', 'cancelled', 'dead'))
EXECUTE FUNCTION workflow.queue_webhook();

-- Whoever looks for what is due sees what is to be sent; the outcome is written as the user whose it is.
CREATE POLICY of_service ON workflow.webhook_deliveries
    USING ((SELECT workflow.scope()) = 'service' AND status = 'pending');

SELECT workflow.protect();
