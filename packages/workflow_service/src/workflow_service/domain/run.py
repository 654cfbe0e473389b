"""A run: one execution of a named workflow, as the database tells it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

JsonObject = Mapping[str, Any]  # Any: JSON, checked where it enters the service


class RunStatus(StrEnum):
    """Where a run stands; a run leaves the last three never again."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to a run in this status."""
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a user asks for: committed before anything is enqueued."""

    user_id: str
    workflow_name: str
    input_data: JsonObject
    options: JsonObject = field(default_factory=dict)
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow, without its result: that may be large, and few ask for it.

    ``attempt`` counts the workers that have claimed it.
    """

    id: UUID
    user_id: str
    workflow_name: str
    input_data: JsonObject
    options: JsonObject
    status: RunStatus
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to a run. ``run.attempt`` is the fencing token: a later claim outdates this one."""

    run: Run
    worker_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a run that is done. ``percent`` is 0 to 100 and never goes backwards within a run."""

    step: str
    percent: int
    description: str

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError(f"percent must be 0 to 100, got {self.percent!r}")
        if not self.step:
            raise ValueError("step must not be empty")


class EventKind(StrEnum):
    """What happened to a run."""

    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    REQUEUED = "requeued"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no event follows this one."""
        return self in (EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's history. ``seq`` starts at 1 and grows by one within the run."""

    run_id: UUID
    seq: int
    kind: EventKind
    data: JsonObject
    at: datetime
