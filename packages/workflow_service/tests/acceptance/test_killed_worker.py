"""A worker killed with -9 in the middle of a run: another one, started by hand, finishes it."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from installation import COMMAND, Installation, serve, wait_until

T = TypeVar("T")

GATE = 7_094_823_517  # an advisory lock: who writes the step `extract` waits for it
LEASE = "1.5"  # seconds

CLOSE_GATE = f"""
CREATE FUNCTION workflow.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({GATE});
    RETURN NEW;
END $$;
CREATE TRIGGER gate BEFORE INSERT ON workflow.run_events
    FOR EACH ROW WHEN (NEW.step = 'extract') EXECUTE FUNCTION workflow.wait_at_gate();
"""
WAITING_AT_GATE = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND NOT granted"
)
KEEP_FORGOTTEN = """
CREATE TABLE workflow.forgotten (LIKE workflow.checkpoints);
CREATE FUNCTION workflow.keep_forgotten() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO workflow.forgotten VALUES (OLD.*);
    RETURN OLD;
END $$;
CREATE TRIGGER keep BEFORE DELETE ON workflow.checkpoints
    FOR EACH ROW EXECUTE FUNCTION workflow.keep_forgotten();
"""  # an ended run's checkpoints are removed; this is how the test sees them all
SUPERSTEPS = """
SELECT metadata->>'source' AS source, (metadata->>'step')::int AS step
FROM workflow.forgotten WHERE thread_id = $1 ORDER BY checkpoint_id
"""
KEPT = "SELECT count(*) FROM workflow.checkpoints WHERE thread_id = $1"


def _query(url: str, ask: Callable[[Any], Awaitable[T]]) -> T:
    async def main() -> T:
        connection = await asyncpg.connect(url)
        try:
            return await ask(connection)
        finally:
            await connection.close()

    return asyncio.run(main())


def _kill_at_the_gate(service: Installation) -> str:
    """Start an analysis, kill the worker while it writes the step `extract`, and return the run id."""

    async def hold(connection: Any) -> str:
        await connection.execute(CLOSE_GATE)
        await connection.execute("SELECT pg_advisory_lock($1::bigint)", GATE)
        run_id = await asyncio.to_thread(_submit, service)
        for _ in range(600):
            if await connection.fetchval(WAITING_AT_GATE):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the worker never came to the gate")
        await connection.execute(KEEP_FORGOTTEN)
        [pid] = service.worker_pids()
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: pid not in service.worker_pids())
        await connection.execute("DROP TRIGGER gate ON workflow.run_events")
        return run_id

    return _query(service.database_url, hold)


async def _count_kept(connection: Any, run_id: str) -> int:
    async with connection.transaction():  # the role owns the tables, and is bound by their policies all the same
        await connection.execute("SELECT workflow.enter_scope('run', $1)", run_id)
        return int(await connection.fetchval(KEPT, run_id))


def _submit(service: Installation) -> str:
    sample = files("workflow_service").joinpath("samples", "mutual-nda.pdf").read_bytes()
    return service.execute(service.upload("mutual-nda.pdf", sample))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "broker",
    [
        "folder",
        pytest.param("redis", marks=pytest.mark.needs("redis")),
        pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
    ],
)
def test_the_run_goes_on_after_its_last_checkpoint_and_no_step_is_persisted_twice(
    tmp_path: Path, request: pytest.FixtureRequest, broker: str
) -> None:
    """The steps that were done are not done again; the result is whole; the run says that it had two workers."""
    environment = {"WORKFLOW_RUN_LEASE": LEASE, "WORKFLOW_REAP_INTERVAL": "0.3"}
    if broker != "folder":
        environment["BROKER_URL"] = request.getfixturevalue(f"{broker}_url")
    with serve(tmp_path, **environment) as service:
        run_id = _kill_at_the_gate(service)
        by_hand = subprocess.Popen([*COMMAND, "worker", "--home", str(service.home)], stdout=subprocess.DEVNULL)
        try:
            run = service.wait_for_end(run_id)
        finally:
            by_hand.terminate()
            by_hand.wait(60)
        assert run["status"] == "succeeded", run
        assert run["attempt"] == 2
        with service.api.stream("GET", f"/api/v1/runs/{run_id}/events") as stream:
            kinds = [line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: ")]
        assert [kind for kind in kinds if kind != "requeued"] == [
            "queued",
            "started",
            "progress",
            "progress",
            "started",
            "progress",
            "progress",
            "progress",
            "succeeded",
        ]
        wait_until(lambda: _query(service.database_url, lambda connection: _count_kept(connection, run_id)) == 0)
        steps = _query(service.database_url, lambda connection: connection.fetch(SUPERSTEPS, run_id))
        assert [row["source"] for row in steps].count("input") == 1
        assert [row["step"] for row in steps] == list(range(-1, 5 + 1)), "no superstep was taken twice"
        result = service.api.get(f"/api/v1/runs/{run_id}/result").json()
        assert {finding["kind"] for finding in result["findings"]} >= {"party", "risk", "governing_law"}
