"""What a recovered task's function sees of recovery."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from celery import current_task

from homeloop.errors import LeaseLostError

Saved: TypeAlias = Literal["saved", "behind", "lost"]
"""Written; not written, as the task is further already; not written, as the task is somebody else's now."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """
    How far a task has come.

    Attributes:
        step: The task's own name, or number, for where it is.
        percent: From 0 to 100.
        payload: What the task needs to go on from here: anything that JSON knows.
    """

    step: str | int
    percent: float
    payload: Any = None


Save = Callable[["RecoveryContext", Checkpoint], Awaitable[Saved]]


def lease_clock() -> float:
    """
    Return the seconds of a clock by which leases end.

    It goes on while the machine is suspended, as the database's does, where there is such a clock: on Linux.
    """
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class RecoveryContext:
    """
    One run of a task: where to resume from, and where it writes its checkpoints.

    A task's function takes it as the argument ``recovery_ctx``. Called directly, or eagerly, there is no
    worker to be lost, and checkpoints are kept in it alone.

    Attributes:
        task_id: The task's id.
        resume_from: The last checkpoint of the runs before; None if there is none.
        fence: Larger than in any run before: what others may ask to refuse a worker that was replaced.
        losses: How many workers were lost over the task since its last checkpoint.
        until: When the run's lease is over, by `lease_clock`, unless it is prolonged.
        is_lost: Whether the task is another worker's, or may be.
    """

    def __init__(
        self,
        task_id: str,
        *,
        resume_from: Checkpoint | None = None,
        fence: int = 0,
        losses: int = 0,
        frequency: float = 0.0,
        save: Save | None = None,
        until: float = math.inf,
    ) -> None:
        self.task_id = task_id
        self.resume_from = resume_from
        self.fence = fence
        self.losses = losses
        self._frequency = frequency
        self._save = save
        self._written = resume_from
        self._body = asyncio.current_task()
        self.until = until
        self.is_lost = False

    async def checkpoint(self, step: str | int, percent: float, payload: object = None) -> bool:
        """
        Write down how far the task has come; a later run resumes from here.

        Args:
            step: The task's own name, or number, for where it is; readable in the table.
            percent: From 0 to 100; readable in the table. Never goes backwards: a checkpoint that is
                behind the last one is not written.
            payload: What the task needs to go on: anything that JSON knows. Sealed in the table.

        Returns:
            Whether it was written. With a ``checkpoint_frequency`` of 10 that is the first one, each that
            is 10 percent further than the last one written, and 100.

        Raises:
            LeaseLostError: The task is another worker's now, as this one did not answer for too long.
                Nothing was written; the function is cancelled as well.
            ValueError: ``percent`` is not from 0 to 100. Nothing was written.
            TypeError: JSON does not know what is in ``payload``. Nothing was written, also in a direct call.

        Cancellation: whether it was written is not known.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent must be from 0 to 100; got {percent!r}")
        last = self._written
        if last is not None and percent < min(last.percent + self._frequency, 100):
            return False
        self._check(payload)
        checkpoint = Checkpoint(step, percent, payload)
        saved: Saved = "saved" if self._save is None else await self._save(self, checkpoint)
        if saved == "lost":
            self.lose()
            raise LeaseLostError(self.task_id, self.fence)
        if saved == "saved":
            self._written = checkpoint
        return saved == "saved"

    def _check(self, payload: object) -> None:
        try:
            json.dumps(payload)
        except (TypeError, ValueError, RecursionError) as error:
            name = current_task.name if current_task else "?"
            fact = f"the checkpoint of task {name}[{self.task_id}] cannot be written, its payload is not for JSON"
            remedy = "pass None, numbers, text, and lists and dicts of these: str(value), value.isoformat()"
            raise TypeError(f"{fact}: {error}; {remedy}") from error

    def lose(self) -> None:
        """The task is another worker's: cancel what runs here. Thread: the loop's."""
        if not self.is_lost:
            self.is_lost = True
            if self._body is not None:
                self._body.cancel()

    def is_held(self) -> bool:
        """Tell whether the task is still this run's; once it is not it never is again. Thread: any."""
        self.is_lost = self.is_lost or lease_clock() >= self.until
        return not self.is_lost
