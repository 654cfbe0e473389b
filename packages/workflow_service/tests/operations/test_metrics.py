"""Figures: what an attempt at a run counts as, and what dead processes leave."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from workflow_service.domain.run import Claim, NewRun
from workflow_service.domain.run_statistics import RunStatistics
from workflow_service.gateways import metrics
from workflow_service.gateways.metrics import exposition, observed_attempt
from workflow_service.gateways.postgres.observed_runs import ObservedRunStore
from workflow_service.ports import ClaimLostError


def counted(outcome: str, workflow: str) -> float:
    labels = {"outcome": outcome, "workflow": workflow}
    return REGISTRY.get_sample_value("workflow_run_attempt_duration_seconds_count", labels) or 0.0


ENDINGS: dict[str, Callable[[ObservedRunStore, Claim], Awaitable[object]]] = {
    "succeeded": lambda store, claim: store.succeed(claim, {}),
    "failed": lambda store, claim: store.fail(claim, {"message": "its own"}),
    "cancelled": lambda store, claim: store.cancel(claim),
    "given back": lambda store, claim: store.release(claim),
    "to be retried": lambda store, claim: store.retry_later(claim, {"message": "away"}),
    "lost": lambda store, claim: store.succeed(replace(claim, run=replace(claim.run, attempt=2)), {}),
}


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("outcome", ENDINGS)
def test_attempts_are_counted_by_how_they_end(with_pool: Any, outcome: str) -> None:
    """An ending that was written counts as such; one that never was, as lost; none stays in progress."""
    workflow = f"w{uuid4().hex}"

    async def scenario(pool: Any) -> None:
        store = ObservedRunStore(pool.acquire)
        run, _ = await store.create(NewRun("alice", workflow, {}))
        with observed_attempt():
            claim = await store.claim(run.id, "worker", 60.0)
            assert claim is not None
            assert REGISTRY.get_sample_value("workflow_runs_in_progress") == 1.0
            with pytest.raises(ClaimLostError) if outcome == "lost" else nullcontext():
                await ENDINGS[outcome](store, claim)

    with_pool(scenario)
    assert {each: counted(each, workflow) for each in ENDINGS} == {
        each: float(each == outcome) for each in ENDINGS
    }
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
