-- What calls to language models took. Kept when a run is deleted: it was paid for all the same.
CREATE TABLE workflow.model_usage (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id       text NOT NULL,
    run_id        uuid,
    model         text NOT NULL,
    input_tokens  bigint NOT NULL CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL CHECK (output_tokens >= 0),
    cost          numeric(16, 9),  -- US dollars; NULL: the model had no price
    at            timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX model_usage_by_user ON workflow.model_usage (user_id, at);
CREATE INDEX model_usage_by_run ON workflow.model_usage (run_id) WHERE run_id IS NOT NULL;

SELECT workflow.protect();
