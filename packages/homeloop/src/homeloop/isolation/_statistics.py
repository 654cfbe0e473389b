"""What an executor has done and is doing, counted."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from homeloop.isolation._choice import KindStatistics
from homeloop.isolation._tier import Isolation, Signs
from homeloop.runtime import allocate_lock, forget_in_child


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """
    What happened in one tier.

    Attributes:
        in_flight: Runs that have been asked for and not returned, waiting ones included.
        runs: Runs that have returned, whatever came of them.
        failed: Of these, runs that raised; time-outs and cancellations included.
        leftovers: Tasks that outlived their run.
        stubborn: Of these, tasks that ignored their cancellation and were let go.
        blocked: Runs that blocked their loop.
        abandoned: Runs that ignored their cancellation and were let go.
        kept: Threads or processes that wait for the next run.
        lent: Threads or processes in use, and threads that are blocked for good.
        ended: Threads or processes that were ended: idle, used up, or unfit for another run.
        died: Processes that ended by themselves or had to be killed.
    """

    in_flight: int = 0
    runs: int = 0
    failed: int = 0
    leftovers: int = 0
    stubborn: int = 0
    blocked: int = 0
    abandoned: int = 0
    kept: int = 0
    lent: int = 0
    ended: int = 0
    died: int = 0


@dataclass(frozen=True, slots=True)
class IsolationStatistics:
    """What an `IsolationExecutor` has done, by tier, and what it knows of the kinds of work left to `AUTO`."""

    tiers: Mapping[Isolation, TierStatistics]
    kinds: Mapping[str, KindStatistics]


class Tally:
    """The counts of one tier. Thread: any."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys((field.name for field in fields(TierStatistics)), 0)
        self._lock = allocate_lock()
        forget_in_child(self)

    def begin(self) -> None:
        """Count a run in."""
        with self._lock:
            self._counts["in_flight"] += 1

    def end(self, signs: Signs, failed: bool) -> None:
        """Count a run out."""
        with self._lock:
            self._counts["in_flight"] -= 1
            self._counts["runs"] += 1
            self._counts["failed"] += failed
            self._counts["blocked"] += signs.blocked
            self._counts["abandoned"] += signs.abandoned
            self._count_tasks(signs)

    def count_leftovers(self, signs: Signs) -> None:
        """Count what a scope left beside its runs."""
        with self._lock:
            self._count_tasks(signs)

    def count_ended(self) -> None:
        """Count a thread or process that was ended."""
        with self._lock:
            self._counts["ended"] += 1

    def count_died(self) -> None:
        """Count a process that ended by itself or had to be killed."""
        with self._lock:
            self._counts["died"] += 1

    def statistics(self, kept: int = 0, lent: int = 0) -> TierStatistics:
        """Return the counts now."""
        with self._lock:
            return TierStatistics(**{**self._counts, "kept": kept, "lent": lent})

    def forget_parent(self) -> None:
        """Have an unlocked lock and nothing in flight, in a forked child. Called by the fork hook."""
        self._lock = allocate_lock()
        self._counts["in_flight"] = 0

    def _count_tasks(self, signs: Signs) -> None:
        self._counts["leftovers"] += signs.spilled
        self._counts["stubborn"] += signs.stubborn
