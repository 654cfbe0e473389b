-- Asked when a transaction that touched LangGraph's tables commits: may it, as the run of the thread stands now?
-- The run's row stays locked from the answer to the end of the commit, so nobody takes the run, ends or deletes it
-- between the two. Asked before the statements instead, a worker that is frozen in such a transaction would hold
-- that lock, and nobody could take the run from it.
--
-- Who asks, tells by workflow.attempt:
--   a number  an attempt: it writes and deletes while it holds the run
--   none      no attempt: it writes where the thread is no run's, and deletes there and where nothing is kept
--   not set   a worker of a release before this one: it writes while any attempt holds the run
CREATE FUNCTION workflow.fence() RETURNS trigger LANGUAGE plpgsql
AS $$
DECLARE
    entered text := workflow.scope();
    claim   text := nullif(current_setting('workflow.attempt', true), '');
    id_told uuid := workflow.run_of_thread(CASE TG_OP WHEN 'DELETE' THEN OLD.thread_id ELSE NEW.thread_id END);
    run     record;
BEGIN
    -- The scope of a run does not see the run, that of the service does. (SET in the function's head would do the
    -- same, and only a superuser may write that.) An error takes all back, this included.
    PERFORM set_config('workflow.scope', 'service', true);
    SELECT attempt::text AS attempt, lease_until IS NOT NULL AS is_held, is_kept INTO run
    FROM workflow.runs WHERE id = id_told FOR SHARE;
    PERFORM set_config('workflow.scope', entered, true);
    IF run.attempt IS NULL THEN  -- no run
        IF claim <> 'none' THEN
            RAISE SQLSTATE 'WS001' USING
                MESSAGE = format('attempt %s of run %s is outdated: the run was deleted', claim, id_told);
        END IF;
    ELSIF run.is_held AND coalesce(claim, run.attempt) = run.attempt THEN
        NULL;
    ELSIF TG_OP = 'DELETE' AND NOT run.is_kept AND coalesce(claim, 'none') = 'none' THEN
        NULL;
    ELSIF claim = 'none' THEN
        RAISE SQLSTATE 'WS001' USING
            MESSAGE = format('the checkpoints of run %s are those of the attempt that holds it; none was named',
                             id_told);
    ELSE
        RAISE SQLSTATE 'WS001' USING
            MESSAGE = format('attempt %s of run %s is outdated; stop working on it',
                             coalesce(claim, 'of an older release'), id_told);
    END IF;
    RETURN NULL;
END
$$;

-- What protect() did before stays as it is, and the fence comes to it.
ALTER FUNCTION workflow.protect() RENAME TO protect_rows;

-- What a migration that makes a table ends with, and LangGraph's set-up: row security, and the fence around tables
-- of threads. Statements outside every scope are those of an administrator whom no policy binds: no fence either.
CREATE FUNCTION workflow.protect() RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    one record;
BEGIN
    PERFORM workflow.protect_rows();
    FOR one IN
        SELECT c.oid::regclass AS name
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'workflow'::regnamespace AND c.relkind IN ('r', 'p')
          AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attname = 'thread_id' AND NOT a.attisdropped)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'fence')
    LOOP
        EXECUTE format('CREATE CONSTRAINT TRIGGER fence AFTER INSERT OR UPDATE OR DELETE ON %s '
                       'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (workflow.scope() <> '''') '
                       'EXECUTE FUNCTION workflow.fence()', one.name);
    END LOOP;
END
$$;

SELECT workflow.protect();
