"""The limits beyond which figures become findings."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthThresholds:
    """
    The limits beyond which figures become findings; `math.inf` switches a finding off, but not ``blocked``.

    Args:
        tasks: Pending tasks on one loop.
        lag: Seconds that something due waits for its turn on a loop, 99th percentile.
        blocked: Seconds after which a loop that does not answer counts as blocked. Loops are asked twice as
            often, so this is also what the watch costs.
        utilisation: Share of the time that a loop is busy, 0 to 1.
        memory: Seconds for which a fault that is over still counts.

    Raises:
        TypeError, ValueError: A limit is no number, or not above 0; or ``blocked`` is infinite.
    """

    tasks: int = 50
    lag: float = 0.1
    blocked: float = 1.0
    utilisation: float = 0.9
    memory: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{field.name} is a number, not {value!r}")
            if not value > 0:
                raise ValueError(f"{field.name} is above 0, not {value!r}")
        if math.isinf(self.blocked):  # it is how often loops are asked
            raise ValueError("blocked is a number of seconds, not infinity")
