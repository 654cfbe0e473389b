"""A run: one execution of a named workflow, as the database tells it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

JsonObject = Mapping[str, Any]  # Any: JSON, checked where it enters the service


class RunStatus(StrEnum):
    """Where a run stands; it leaves the last five only when a person acts."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    """As running, but its worker has been told to stop."""
    WAITING = "waiting"
    """A person has to answer before it goes on; it is nobody's until then."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"
    """Its workers were lost, or what it needs was away, too often in a row: a person has to look."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to a run in this status by itself."""
        return self in _FINAL


_FINAL = frozenset((RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD))
_RESUMABLE = frozenset((RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD))


class CancelMode(StrEnum):
    """How a run is ended before its time. Each is harder than those before it, and may follow them."""

    DRAIN = "drain"
    """At the next step boundary; the run can be resumed there."""
    INTERRUPT = "interrupt"
    """Now: the code is cancelled and cleans up; the run can be resumed after its last whole step."""
    ROLLBACK = "rollback"
    """As interrupt, and what was kept of the run is removed: it cannot be resumed."""
    KILL = "kill"
    """In the database, at once, whatever its worker does; that one stops without clean-up where it can."""


class Isolation(StrEnum):
    """How far apart from other runs a run works: the tiers of homeloop."""

    NONE = "none"
    CONTEXT = "context"
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is to be executed. ``timeout``: seconds that one attempt may take; None for any time."""

    isolation: Isolation = Isolation.NONE
    timeout: float | None = None

    @classmethod
    def of(cls, options: "JsonObject") -> "RunOptions":
        """Read a run's ``options``, which were checked where they entered the service."""
        return cls(Isolation(options.get("isolation", Isolation.NONE)), options.get("timeout"))


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asks a person. ``id`` is no other question's; ``value`` is JSON, as the workflow put it."""

    id: str
    value: Any  # Any: JSON


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

    ``attempt`` counts the workers that have claimed it; ``percent`` and ``step`` are of its last recorded step.
    ``cancel_mode`` is how it was told to end, if it was. ``is_kept``: what it needs for going on is still there.
    ``questions`` are what it waits for, ``answers`` all that were ever given, by the question's id.
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
    percent: int = 0
    step: str | None = None
    cancel_mode: CancelMode | None = None
    is_kept: bool = True
    questions: tuple[Question, ...] = ()
    answers: JsonObject = field(default_factory=dict)

    @property
    def can_cancel(self) -> bool:
        """Whether there is something to end."""
        return not self.status.is_final

    @property
    def can_resume(self) -> bool:
        """Whether it can go on after its last whole step."""
        return self.status in _RESUMABLE and self.is_kept


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to a run. ``run.attempt`` is the fencing token: a later claim outdates this one."""

    run: Run
    worker_id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker is told when it renews its claim: whether it holds, and whether the run is to end."""

    is_held: bool
    cancel_mode: CancelMode | None = None


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
    RESUMED = "resumed"
    CANCELLING = "cancelling"
    WAITING = "waiting"
    ANSWERED = "answered"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def is_final(self) -> bool:
        """Whether no event follows this one, unless the run is resumed."""
        return self in (EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED, EventKind.DEAD)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's history. ``seq`` starts at 1 and grows by one within the run."""

    run_id: UUID
    seq: int
    kind: EventKind
    data: JsonObject
    at: datetime
