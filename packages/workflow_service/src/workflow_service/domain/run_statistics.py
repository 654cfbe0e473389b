"""How much work there is."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """The runs that have not ended, of all users."""

    unfinished: Mapping[str, int]
    """How many there are, by status; a status that none has may be missing."""

    queue_age: float
    """Seconds since the oldest queued run was made; 0 when none is queued."""

    overdue: int
    """Runs whose lease is over: their worker fell silent, and nobody has taken them yet."""
