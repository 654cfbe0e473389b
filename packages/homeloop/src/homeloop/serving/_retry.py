"""Try again what failed because of an event loop's life, and nothing else."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from homeloop import diagnose

logger = logging.getLogger("homeloop.serving")

T = TypeVar("T")

_LIFECYCLE = frozenset(
    (
        "reuse-across-runs",
        "loop-captured",
        "late-cleanup",
        "loop-stopped-early",
        "nested-run",
        "greenlet-loop-collision",
    )
)
"""What `homeloop.diagnose` calls it when a loop has ended, or runs already, and the code did not expect that."""


@dataclass(frozen=True, slots=True)
class Retry:
    """
    How often a call is tried that fails because of an event loop's life, and how long it waits in between.

    Such are "Event loop is closed", "Cannot run the event loop while another loop is running" and "This event loop
    is already running", if `homeloop.diagnose` finds that a loop was the cause: an error of your own with the same
    words is raised at once. A client that was kept from a finished loop has often dropped its dead connection
    by the second attempt.

    Attributes:
        attempts: Calls at the most, the first one included.
        backoff: Seconds before the second attempt, doubled before each further one; of each pause a part
            between a half and the whole is waited, by chance, so that callers who failed together come back apart.
        max_backoff: Seconds of a pause at the most.

    Raises:
        ValueError: ``attempts`` is below 1, or a time is negative.
    """

    attempts: int = 3
    backoff: float = 0.1
    max_backoff: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts!r}")
        if self.backoff < 0 or self.max_backoff < 0:
            raise ValueError(
                f"backoff and max_backoff must be at least 0 seconds, got {self.backoff!r}, {self.max_backoff!r}"
            )

    async def run(self, fn: Callable[[], Awaitable[T]], name: str) -> T:
        """Call ``fn`` until it returns, raises what no loop is the cause of, or has been tried often enough."""
        attempt = 1
        while True:
            try:
                return await fn()
            except Exception as error:
                if not self._tries_again(attempt, error, name):
                    raise
            await asyncio.sleep(self._pause(attempt))
            attempt += 1

    def _tries_again(self, attempt: int, error: Exception, name: str) -> bool:
        found = diagnose(error)
        if found is None or found.kind not in _LIFECYCLE:
            return False
        last = attempt >= self.attempts
        logger.warning(
            "attempt %d of %d at %s failed, %s: %s: %s [%s, %s]",
            attempt,
            self.attempts,
            name,
            "the last one" if last else "another follows",
            type(error).__name__,
            found.message,
            found.code,
            found.explanation.title,
        )
        return not last

    def _pause(self, attempt: int) -> float:
        doublings = min(attempt - 1, 1000)  # 2.0 ** 1024 is an OverflowError
        pause: float = min(self.max_backoff, self.backoff * 2.0**doublings)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
