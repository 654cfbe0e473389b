"""Figures: what an attempt at a run counts as, and what dead processes leave."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from workflow_service.domain.run_statistics import RunStatistics
from workflow_service.gateways import metrics
from workflow_service.gateways.metrics import ObservedRuns, exposition, observed_attempt
from workflow_service.ports import ClaimLostError


class Runs:
    """As much of a run store as is observed."""

    def __init__(self, workflow: str) -> None:
        self._claim = SimpleNamespace(
            run=SimpleNamespace(id=uuid4(), attempt=1, workflow_name=workflow, user_id="alice")
        )
        self.is_lost = False

    async def claim(self, run_id: object, worker_id: str, lease: float) -> Any:
        return self._claim

    async def succeed(self, claim: object, result: object) -> None:
        if self.is_lost:
            raise ClaimLostError("lost")

    async def get(self, user_id: str, run_id: object) -> str:
        return f"a run of {user_id}"


def counted(outcome: str, workflow: str) -> float:
    labels = {"outcome": outcome, "workflow": workflow}
    return REGISTRY.get_sample_value("workflow_run_attempt_duration_seconds_count", labels) or 0.0


def test_attempts_are_counted_by_how_they_end() -> None:
    """An ending that was written counts as such; one that never was, as lost; none stays in progress."""

    async def attempt(runs: Runs) -> None:
        observed: Any = ObservedRuns(runs)  # type: ignore[arg-type]
        with observed_attempt():
            claim = await observed.claim(uuid4(), "w", 1.0)
            assert REGISTRY.get_sample_value("workflow_runs_in_progress") == 1.0
            assert await observed.get("alice", uuid4()) == "a run of alice"
            await observed.succeed(claim, {})

    workflow = f"w{uuid4().hex}"
    asyncio.run(attempt(Runs(workflow)))
    lost = Runs(workflow)
    lost.is_lost = True
    with pytest.raises(ClaimLostError):
        asyncio.run(attempt(lost))
    assert (counted("succeeded", workflow), counted("lost", workflow)) == (1.0, 1.0)
    assert REGISTRY.get_sample_value("workflow_runs_in_progress") == 0.0


def test_runs_are_told_by_status() -> None:
    """Statuses that no run has are told as 0, so that a graph has no holes."""
    text = exposition(RunStatistics({"queued": 2, "cancelling": 1}, queue_age=7.5, overdue=1)).decode()
    assert 'workflow_runs{status="queued"} 2.0' in text
    assert 'workflow_runs{status="running"} 0.0' in text
    assert 'workflow_runs{status="cancelling"} 1.0' in text
    assert "workflow_queue_age_seconds 7.5" in text
    assert "workflow_runs_overdue 1.0" in text


def test_gauges_of_killed_processes_are_forgotten(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed cleaned up nothing; whoever is asked next does."""
    (tmp_path / "gauge_livesum_4194304.db").touch()  # above the largest number that Linux gives
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics.exposition()
    assert list(tmp_path.iterdir()) == []
