"""A worker that is told to stop in the middle of runs gives them back, and another goes on: nothing is lost."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

import asyncpg
import pytest
from production import Production, wait_until

pytestmark = [pytest.mark.needs("postgres", "redis"), pytest.mark.timeout(300)]

T = TypeVar("T")

RUNS = 3
GATE = 7_094_823_518  # an advisory lock: who writes a checkpoint waits for it
CLOSE_GATE = f"""
CREATE FUNCTION workflow.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({GATE});
    RETURN NEW;
END $$;
CREATE TRIGGER gate BEFORE INSERT ON workflow.checkpoints
    FOR EACH ROW EXECUTE FUNCTION workflow.wait_at_gate();
"""
WAITING_AT_GATE = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND NOT granted "
    f"AND objid = {GATE % 2**32}"
)


def on_database(url: str, ask: Callable[[Any], Awaitable[T]]) -> T:
    """Run ``ask(connection)`` on a loop of its own."""

    async def main() -> T:
        connection = await asyncpg.connect(url)
        try:
            return await ask(connection)
        finally:
            await connection.close()

    return asyncio.run(main())


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_runs_of_a_worker_that_is_told_to_stop_go_on_elsewhere(production: Production, pool: str) -> None:
    """After SIGTERM and its grace the runs are queued again, by the worker itself, and the exit code is 0."""
    production.start_api()
    first = production.start_worker("--pool", pool, "--concurrency", str(RUNS), WORKFLOW_WORKER_GRACE="1")
    sample = files("workflow_service").joinpath("samples", "mutual-nda.pdf").read_bytes()
    document_id = production.upload("mutual-nda.pdf", sample)
    production.wait_for_end(production.execute("contract_analysis", {"document_id": document_id}))

    async def stop_at_the_gate(connection: Any) -> list[str]:
        await connection.execute(CLOSE_GATE)
        await connection.execute("SELECT pg_advisory_lock($1::bigint)", GATE)
        run_ids = [
            await asyncio.to_thread(production.execute, "contract_analysis", {"document_id": document_id})
            for _ in range(RUNS)
        ]
        for _ in range(600):
            if await connection.fetchval(WAITING_AT_GATE) == RUNS:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the runs never came to the gate")
        assert await asyncio.to_thread(first.stop) == 0, first.text
        reasons = await connection.fetch(
            "SELECT data->>'reason' AS it FROM workflow.run_events WHERE kind = 'requeued'"
        )
        assert [row["it"] for row in reasons] == ["released"] * RUNS
        return run_ids

    run_ids = on_database(production.environment["DATABASE_URL"], stop_at_the_gate)
    production.start_worker("--pool", pool)
    for run_id in run_ids:
        run = production.wait_for_end(run_id)
        assert (run["status"], run["attempt"]) == ("succeeded", 2), run
    assert "Traceback" not in first.text


def test_log_lines_and_figures_tell_of_a_run(production: Production) -> None:
    """Lines about a run carry its id; API and worker tell what runs and requests took; nobody tells a secret."""
    worker_port = production.port + 1 if production.port < 65535 else production.port - 1
    api = production.start_api("--workers", "2", WORKFLOW_LOG_FORMAT="json")
    worker = production.start_worker("--metrics-port", str(worker_port), WORKFLOW_LOG_FORMAT="json")
    run_id = production.execute("contract_analysis", {"document_id": production.upload("a.txt", b"An agreement.")})
    production.wait_for_end(run_id)
    url = f"http://127.0.0.1:{worker_port}/metrics"

    def told() -> str:
        return production.api.get(url).text

    line = 'workflow_run_attempt_duration_seconds_count{outcome="succeeded",workflow="contract_analysis"} 1.0'
    wait_until(lambda: line in told())
    assert "homeloop_health_status 0.0" in told()
    figures = production.api.get("/metrics").text
    assert 'workflow_runs{status="queued"} 0.0' in figures
    execute = 'method="POST",route="/api/v1/workflows/execute",status="202"'
    assert f"workflow_http_request_duration_seconds_count{{{execute}}} 1.0" in figures
    assert production.api.get("/metrics", headers={"Authorization": ""}).status_code == 401
    assert production.api.get("/health/loops").json()["loops"][0]["name"] == "api"
    assert worker.stop() == 0
    assert api.stop() == 0
    lines = [json.loads(each) for each in worker.text.splitlines() if each.startswith("{")]
    assert {each["level"] for each in lines} == {"info"}
    users = {each.get("user") for each in lines if each.get("run_id") == run_id}
    assert "alice" not in users
    assert any(user.startswith("u-") for user in users if user), worker.text
    assert "key of the tests" not in worker.text + api.text
