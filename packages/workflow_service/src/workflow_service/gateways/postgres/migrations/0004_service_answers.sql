-- Answers of external services, kept for the user who asked. `key` is a digest of service, operation and parameters.
CREATE TABLE workflow.service_answers (
    user_id    text NOT NULL,
    key        bytea NOT NULL CHECK (length(key) = 32),
    service    text NOT NULL,
    data       jsonb NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);

CREATE INDEX service_answers_by_age ON workflow.service_answers (user_id, stored_at DESC);
CREATE INDEX service_answers_by_expiry ON workflow.service_answers (expires_at);

-- Whoever removes what has expired sees that, and nothing else.
CREATE POLICY of_service ON workflow.service_answers
    USING ((SELECT workflow.scope()) = 'service' AND expires_at < clock_timestamp());

SELECT workflow.protect();
