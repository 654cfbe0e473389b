"""Runs in processes of their own, steered over HTTP, on the service as a user starts it."""

from importlib.resources import files
from pathlib import Path

import psutil
import psycopg
import pytest
from installation import Installation, serve, wait_until

HOLD = "LOCK TABLE workflow.checkpoints IN ACCESS EXCLUSIVE MODE"  # who works on a run waits
IS_WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND NOT granted)"
APART = {"isolation": "process"}


def _processes(service: Installation) -> set[int]:
    """Return the processes below the worker."""
    return {
        child.pid
        for pid in service.worker_pids()
        for child in psutil.Process(pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
    }


@pytest.mark.timeout(240)
def test_a_run_in_a_process_of_its_own_is_killed_resumed_and_deleted(tmp_path: Path) -> None:
    """SIGKILL within moments, though the lease lasts a minute; it goes on afterwards, and nothing is left."""
    sample = files("workflow_service").joinpath("samples", "mutual-nda.pdf").read_bytes()
    with serve(tmp_path, WORKFLOW_RUN_LEASE="60") as service:
        document = service.upload("mutual-nda.pdf", sample)
        first = service.get(f"runs/{service.execute(document, APART)}/wait?timeout=90")
        assert (first["status"], first["percent"], first["step"]) == ("succeeded", 100, "report")

        with psycopg.connect(service.database_url) as holder:
            holder.execute(HOLD)
            run_id = service.execute(document, APART)
            wait_until(lambda: holder.execute(IS_WAITING).fetchone() == (True,))
            before = _processes(service)
            killed = service.api.post(f"/api/v1/runs/{run_id}/cancel", json={"mode": "kill"})
            assert (killed.status_code, killed.json()["status"]) == (202, "cancelled")
            wait_until(lambda: before - _processes(service))

        assert service.api.post(f"/api/v1/runs/{run_id}/resume").status_code == 202
        resumed = service.get(f"runs/{run_id}/wait?timeout=90")
        assert (resumed["status"], resumed["attempt"]) == ("succeeded", 2)
        assert service.api.delete(f"/api/v1/runs/{run_id}").status_code == 204
        assert [run["id"] for run in service.get("runs?status=succeeded")["runs"]] == [first["id"]]
        left = _processes(service)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in left))
