"""What recovery writes down about a task, and what a store of it must do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from homeloop.adapters.celery._checkpoints import Saved
from homeloop.adapters.celery.recovery._bounds import BOUND

State: TypeAlias = Literal["running", "queued", "waiting", "ended", "dead"]
"""Held by a worker; to be sent again, or sent; waits for its retry; over, whatever the outcome; lost too often."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A checkpoint as a store keeps it: the payload is sealed."""

    step: str | int
    percent: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """
    A message that a worker is about to run.

    Attributes:
        replaced: How often the task has been replaced by another one, which has its id.
        retries: How often it has been retried since.
        message: Sealed, and good for sending it again.
    """

    app: str
    task_id: str
    name: str
    replaced: int
    retries: int
    priority: int
    holder: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """A task that is its holder's. ``fence`` is larger than that of any holder before."""

    fence: int
    losses: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class LostTask:
    """A task whose holder fell silent, now `queued` to be sent again, or `dead` as that was once too often."""

    task_id: str
    name: str
    fence: int
    losses: int
    is_dead: bool
    message: bytes


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """
    A task as a store lists it.

    Attributes:
        losses: How often a worker was lost over it since it last made progress.
        holder: The worker that runs it, or ran it last.
        updated: When the row last changed.
    """

    task_id: str
    name: str
    state: State
    priority: int
    losses: int
    step: str | int | None
    percent: float
    holder: str
    updated: datetime


_BEATS = 4
"""Per lease: one may be late and the next one fail, and the lease still holds."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What `recover_tasks` was told; times in seconds."""

    app: str
    lease: float
    sweep_interval: float
    resend_after: float
    max_losses: int
    keep: float

    @property
    def beat(self) -> float:
        """Seconds between two renewals, and between two tries to tell of an end."""
        return self.lease / _BEATS

    @property
    def bound(self) -> float:
        """Seconds to wait for the store, or the broker, once: a part of a lease, or what is sent is sent twice."""
        return min(BOUND, self.lease / 2)


@runtime_checkable
class RecoveryStore(Protocol):
    """
    Where recovery keeps its records; `PostgresStore` is one.

    A task is known by its app and its id. Every method is one atomic step, however many workers call it at the
    same time. Times are the store's, durations are seconds. Recovery waits for each only so long, then cancels it
    and does not wait for its clean-up.
    """

    async def prepare(self) -> None:
        """Make what is missing of the store. Concurrent calls are safe."""

    async def claim(self, claim: Claim, lease: float, max_losses: int) -> Held | Literal["later"] | None:
        """
        Hold a task for ``lease`` seconds; None if it is not to run, "later" if that is not known yet.

        It may run if it is new, `queued`, or `running` with its lease over and not lost ``max_losses`` times. A
        message that comes later than that of the row (by ``replaced``, then by ``retries``) may run in any state
        but two: "later" is the answer while the lease of a run before it lasts, and a task that has ended without
        asking for a retry has none. What has replaced it begins without a checkpoint.
        """

    async def renew(self, app: str, held: Mapping[str, int], lease: float) -> set[str]:
        """Prolong the leases of tasks with these fences; return the ids of those that are still held so."""
        ...

    async def save(self, app: str, task_id: str, fence: int, progress: Progress, lease: float) -> Saved:
        """Write a checkpoint that is not behind the last one, and prolong the lease; set ``losses`` to 0."""
        ...

    async def end(self, app: str, task_id: str, fence: int | None) -> bool:
        """End a task for good, if it is held with this fence, or (None) whoever holds it; tell whether it was."""
        ...

    async def wait(self, app: str, task_id: str, fence: int, delay: float) -> bool:
        """End a run that has asked for a retry, due in ``delay`` seconds: the task is `waiting` for that."""
        ...

    async def release(self, app: str, task_id: str, fence: int, delay: float) -> bool:
        """
        Give a task back, `queued`; a sweep sends it again when nobody has claimed it for ``delay`` seconds.

        For whoever holds it, or has it from a sweep to send.
        """
        ...

    async def sweep(self, app: str, lease: float, max_losses: int, limit: int) -> Sequence[LostTask]:
        """
        Take the tasks whose time is over, the highest priority first.

        A loss counts of what was `running`; that is `dead` if it was lost ``max_losses`` times before. What is
        `queued` by this call is the caller's to send, and what is `dead` its to be told of, for ``lease`` seconds;
        then any sweep's again.
        """
        ...

    async def tell(self, app: str, task_id: str, fence: int) -> None:
        """Those who wait for a `dead` task have been told; no sweep takes it again."""

    async def purge(self, app: str, keep: float) -> None:
        """Delete what ended more than ``keep`` seconds ago, and what waits for a retry that long overdue."""

    async def list_tasks(self, app: str, state: State | None, limit: int) -> Sequence[TaskRecord]:
        """Return tasks, the latest change first."""
        ...

    async def requeue(self, app: str, task_id: str, lease: float) -> LostTask | None:
        """Make a `dead` task `queued`, with no losses, for the caller to send; None if there is no such task."""
        ...
