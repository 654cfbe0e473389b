"""A webhook's delivery: what is sent when a run ends, and how that went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

PAUSES: Sequence[float] = (5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000)
"""Seconds between attempts, the later ones longer: about two days together, as Standard Webhooks recommends."""


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    """It is to be sent, for the first time or again."""
    DELIVERED = "delivered"
    """The receiver answered with a success."""
    FAILED = "failed"
    """It was given up; a person can have it sent again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a user is shown of a delivery. ``id`` stays in all attempts: receivers know a repetition by it."""

    id: UUID
    run_id: UUID
    event: str
    url: str
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None
    last_status: int | None
    """The HTTP status of the last attempt, if there was an answer."""
    last_error: str | None


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery to be sent now. ``attempt`` counts from 1, and fences: only the last one's outcome is written."""

    id: UUID
    user_id: str
    url: str
    body: bytes
    attempt: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went; ``error`` is None when the receiver took the delivery."""

    status: int | None = None
    error: str | None = None
    is_final: bool = False
    """Whether another attempt makes no sense: the receiver wants no more."""
    retry_after: float | None = None
    """Seconds that the receiver asks to wait."""


def pause_after(attempt: int, outcome: Outcome) -> float:
    """Return the seconds until a delivery that failed for the ``attempt``-th time is sent again."""
    pause = PAUSES[min(attempt, len(PAUSES)) - 1]
    return min(max(pause, outcome.retry_after or 0.0), PAUSES[-1])
