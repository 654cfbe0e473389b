-- Keys that users present. Only a digest of the secret is kept; the prefix finds the row and is no secret.
CREATE TABLE workflow.api_keys (
    prefix       text PRIMARY KEY,
    user_id      text NOT NULL CHECK (user_id <> ''),
    label        text NOT NULL,
    digest       bytea NOT NULL CHECK (length(digest) = 32),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);

CREATE INDEX api_keys_by_user ON workflow.api_keys (user_id, created_at DESC);

-- Who sees what. A transaction enters a scope (below); without one it sees no row of any user.
--   user      subject: a user's name. That user's rows, and nothing else.
--   run       subject: a run's id. That run's checkpoints: what a worker needs to go on with it.
--   key       subject: a key's prefix. That key: what is needed to find out who asks.
--   service   the runs of all users and their events: what claims runs and finds those that were lost.
--   operator  the keys of all users: the command line.
CREATE FUNCTION workflow.scope() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT pg_catalog.current_setting('workflow.scope', true) $$;

CREATE FUNCTION workflow.subject_of(scope text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT CASE WHEN pg_catalog.current_setting('workflow.scope', true) = scope
       THEN nullif(pg_catalog.current_setting('workflow.subject', true), '') END
$$;

-- A thread of LangGraph as the run whose id it is; NULL when it is no id.
CREATE FUNCTION workflow.run_of_thread(thread_id text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN thread_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN thread_id::uuid END $$;

-- Enters a scope until the end of the transaction. A superuser, and whoever has BYPASSRLS, is subject to no policy
-- and becomes workflow_service_user; so does everyone else who may, for a table's owner could take its policies away.
CREATE FUNCTION workflow.enter_scope(scope text, subject text) RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    how text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    PERFORM pg_catalog.set_config('workflow.scope', scope, true),
            pg_catalog.set_config('workflow.subject', subject, true);
    IF EXISTS (
        SELECT FROM pg_catalog.pg_roles
        WHERE rolname = 'workflow_service_user' AND pg_catalog.pg_has_role(oid, how)
          AND pg_catalog.has_schema_privilege(oid, 'workflow', 'USAGE')
    ) THEN
        PERFORM pg_catalog.set_config('role', 'workflow_service_user', true);
    ELSIF EXISTS (
        SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)
    ) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('row security does not bind the role %I, and it may not become workflow_service_user',
                             current_user),
            HINT = format('as a superuser, run in this database: SELECT workflow.protect(); '
                          'GRANT workflow_service_user TO %I; or let the service connect as a role '
                          'that is neither superuser nor BYPASSRLS', current_user);
    END IF;
END
$$;

-- Puts every table of the schema under the rule that its columns tell, and lets workflow_service_user work on it.
-- A migration that makes a table ends with it: SELECT workflow.protect(). What is protected already is left alone.
--   user_id             rows are that user's
--   run_id, no user_id  rows are those of the user whose run it is
--   thread_id           LangGraph's: rows are those of the user whose run's id it is
--   none                no user's: may be read by all, written by the owner only
CREATE FUNCTION workflow.protect() RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    one record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'workflow_service_user')
       AND EXISTS (SELECT FROM pg_catalog.pg_roles
                   WHERE rolname = current_user AND (rolsuper OR rolcreaterole)) THEN
        BEGIN
            CREATE ROLE workflow_service_user NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- the same happens in another database of this server
        END;
        IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
            EXECUTE format('GRANT workflow_service_user TO %I', current_user);
        END IF;
    END IF;
    FOR one IN
        SELECT c.oid, c.oid::regclass AS name, c.relname,
               c.relrowsecurity AND c.relforcerowsecurity AS is_protected,
               array(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'workflow'::regnamespace AND c.relkind IN ('r', 'p')
    LOOP
        CONTINUE WHEN one.is_protected OR NOT one.columns && ARRAY['user_id', 'run_id', 'thread_id'];
        IF 'user_id' = ANY (one.columns) THEN
            EXECUTE format('CREATE POLICY of_user ON %s USING (user_id = (SELECT workflow.subject_of(''user'')))',
                           one.name);
        ELSIF 'run_id' = ANY (one.columns) THEN
            EXECUTE format('CREATE POLICY of_user ON %s USING (EXISTS ('
                           'SELECT FROM workflow.runs WHERE runs.id = %1$s.run_id))', one.name);
        ELSE
            EXECUTE format('CREATE POLICY of_user ON %s USING (EXISTS ('
                           'SELECT FROM workflow.runs WHERE runs.id = workflow.run_of_thread(%1$s.thread_id)))',
                           one.name);
            EXECUTE format('CREATE POLICY of_run ON %s USING (thread_id = (SELECT workflow.subject_of(''run'')))',
                           one.name);
        END IF;
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', one.name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'workflow_service_user') THEN
        GRANT USAGE ON SCHEMA workflow TO workflow_service_user;
        FOR one IN
            SELECT c.oid::regclass AS name, c.relrowsecurity AS is_protected
            FROM pg_catalog.pg_class c
            WHERE c.relnamespace = 'workflow'::regnamespace AND c.relkind IN ('r', 'p')
              AND NOT pg_catalog.has_table_privilege('workflow_service_user', c.oid,
                          CASE WHEN c.relrowsecurity THEN 'INSERT' ELSE 'SELECT' END)
        LOOP
            EXECUTE format('GRANT %s ON %s TO workflow_service_user',
                CASE WHEN one.is_protected THEN 'SELECT, INSERT, UPDATE, DELETE' ELSE 'SELECT' END, one.name);
        END LOOP;
    END IF;
END
$$;

CREATE POLICY of_service ON workflow.runs USING ((SELECT workflow.scope()) = 'service');
CREATE POLICY of_operator ON workflow.api_keys USING ((SELECT workflow.scope()) = 'operator');
CREATE POLICY presented ON workflow.api_keys FOR SELECT
    USING (prefix = (SELECT workflow.subject_of('key')));
CREATE POLICY used ON workflow.api_keys FOR UPDATE
    USING (prefix = (SELECT workflow.subject_of('key')));

SELECT workflow.protect();
