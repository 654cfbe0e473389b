"""A worker that is frozen in a run, outlives its lease, and wakes when another has ended the run."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import psutil
import pytest
from production import Process, Production, wait_until

pytestmark = [pytest.mark.needs("postgres", "redis"), pytest.mark.timeout(300)]

LEASE = "2"  # seconds
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def kept(url: str, run_id: str) -> dict[str, list[str]]:
    """Return every row of the run's thread, as a superuser."""

    async def read() -> dict[str, list[str]]:
        connection = await asyncpg.connect(url)
        try:
            return {
                table: [
                    row[0]
                    for row in await connection.fetch(
                        f"SELECT it::text FROM workflow.{table} AS it WHERE thread_id = $1 ORDER BY 1", run_id
                    )
                ]
                for table in TABLES
            }
        finally:
            await connection.close()

    return asyncio.run(read())


def tell(worker: Process, number: signal.Signals) -> None:
    """Send a signal to a worker and all its processes."""
    first = psutil.Process(worker.popen.pid)
    for process in (first, *first.children(recursive=True)):
        os.kill(process.pid, number)


@pytest.mark.parametrize("tier", ["none", "thread", "process"])
def test_a_worker_that_wakes_too_late_changes_nothing_and_says_so_in_one_line(
    production: Production, tmp_path: Path, tier: str
) -> None:
    """The thread stays as the other one has ended it, to the row; the loss of a claim is one line."""
    stage = tmp_path / "stage"
    stage.mkdir()
    here = str(Path(__file__).parent / "plugin")
    production.environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
        "STANDS_STILL_IN": str(stage),
        "WORKFLOW_RUN_LEASE": LEASE,
    }
    production.start_api()
    frozen = production.start_worker("--pool", "asyncio")
    run_id = production.execute("stands_still", {}, {"isolation": tier})
    wait_until((stage / "entered").exists)
    tell(frozen, signal.SIGSTOP)
    try:
        production.start_worker("--pool", "asyncio")
        (stage / "go").touch()
        run = production.wait_for_end(run_id)
        assert (run["status"], run["attempt"], run["error"]["message"]) == ("failed", 2, "this is where it ends")
        ended = kept(production.environment["DATABASE_URL"], run_id)
        assert all(ended.values())
    finally:
        tell(frozen, signal.SIGCONT)
    frozen.wait_for("succeeded in")  # the job; what became of the run is in the lines before
    assert frozen.stop() == 0
    assert kept(production.environment["DATABASE_URL"], run_id) == ended
    assert len(told(frozen, run_id)) == 1, frozen.text
    alarms = ("Traceback", "CallbackRaised", "CleanUpFailed", "ERROR")
    assert not [word for word in alarms if word in frozen.text], frozen.text
    assert production.run(run_id) == run


def told(worker: Process, run_id: str) -> list[str]:
    """Return what a worker has said of the end of its claim."""
    lines = [line for line in worker.text.splitlines() if run_id in line]
    return [line for line in lines if "outdated" in line or "lease" in line]
