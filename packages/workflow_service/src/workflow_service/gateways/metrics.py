"""Figures for Prometheus: what is counted where it happens, and how one process or several tell it."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from workflow_service.domain.run import Claim
from workflow_service.domain.run_statistics import RunStatistics
from workflow_service.logs import bound

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Where the processes of one server put their figures for each other; prometheus-client's own name for it."""

_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_RUN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

HTTP_SECONDS = Histogram(
    "workflow_http_request_duration_seconds",
    "Time until the response to a request has been sent whole",
    ("method", "route", "status"),
    buckets=_HTTP_SECONDS,
)
HTTP_IN_PROGRESS = Gauge(
    "workflow_http_requests_in_progress",
    "Requests that are being answered, open event streams included",
    multiprocess_mode="livesum",
)
RUN_SECONDS = Histogram(
    "workflow_run_attempt_duration_seconds",
    "Time a worker spent on a run, by how its attempt ended",
    ("workflow", "outcome"),
    buckets=_RUN_SECONDS,
)
RUNS_IN_PROGRESS = Gauge(
    "workflow_runs_in_progress", "Runs that this worker works on", multiprocess_mode="livesum"
)
LEASES_LOST = Counter(
    "workflow_leases_lost",
    "Attempts that ended without an ending of their run: another worker took it over, or the database was away",
)

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Attempt:
    begun: float
    workflow: str = ""
    user_id: str = ""
    outcome: str = "lost"


_attempt: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)


@contextmanager
def observed_attempt() -> Iterator[None]:
    """Measure what the body does with the run that it claims, if it claims one."""
    attempt = _Attempt(time.monotonic())
    token = _attempt.set(attempt)
    try:
        yield
    finally:
        _attempt.reset(token)
        if attempt.workflow:
            RUNS_IN_PROGRESS.dec()
            seconds = time.monotonic() - attempt.begun
            RUN_SECONDS.labels(attempt.workflow, attempt.outcome).observe(seconds)
            with bound(user_id=attempt.user_id):
                _logger.info("%s: %s after %.3f s", attempt.workflow, attempt.outcome, seconds)
            if attempt.outcome == "lost":
                LEASES_LOST.inc()


def note_claim(claim: Claim) -> None:
    """Note that the running `observed_attempt` has its run."""
    if (attempt := _attempt.get()) is not None:
        attempt.begun = time.monotonic()
        attempt.workflow, attempt.user_id = claim.run.workflow_name, claim.run.user_id
        RUNS_IN_PROGRESS.inc()


def note_outcome(outcome: str) -> None:
    """Note how the running `observed_attempt` has ended; without a word it was lost."""
    if (attempt := _attempt.get()) is not None:
        attempt.outcome = outcome


def exposition(statistics: RunStatistics | None = None) -> bytes:
    """Return the figures in Prometheus' text format, of all processes that share a folder if they do.

    Args:
        statistics: Told too, where somebody has asked the database.
    """
    parts = [_collected()]
    if statistics is not None:
        parts.append(generate_latest(_of_runs(statistics)))
    return b"".join(parts)


def _collected() -> bytes:
    folder = os.environ.get(_SHARED)
    if folder is None:
        return generate_latest(REGISTRY)
    for pid in _dead(Path(folder)):
        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _dead(folder: Path) -> Iterable[int]:
    """Return processes whose gauges are still there though they have ended: killed ones clean up nothing."""
    pids = {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}
    return [pid for pid in pids if not Path(f"/proc/{pid}").exists()] if Path("/proc/self").exists() else ()


def _of_runs(statistics: RunStatistics) -> CollectorRegistry:
    registry = CollectorRegistry()
    runs = Gauge("workflow_runs", "Runs that have not ended, by status", ("status",), registry=registry)
    for status in ("queued", "running", "cancelling"):
        runs.labels(status).set(0)
    for status, number in statistics.unfinished.items():
        runs.labels(status).set(number)
    age = Gauge("workflow_queue_age_seconds", "For how long the oldest queued run has waited", registry=registry)
    age.set(statistics.queue_age)
    overdue = Gauge("workflow_runs_overdue", "Runs whose worker fell silent, not taken yet", registry=registry)
    overdue.set(statistics.overdue)
    return registry
