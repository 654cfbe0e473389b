"""What happened to a resource in this process, and what there is of it now."""

import time
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from homeloop._affinity import Affinity
from homeloop._figures import InstanceStatistics, PoolStatistics, ResourceStatistics
from homeloop.runtime import allocate_lock


class Counted(Protocol):
    """What the ledger reads of an instance, on any thread."""

    home: Affinity
    since: float
    leases: int
    waiting: int
    hits: int
    is_current: bool

    def pool(self) -> PoolStatistics | None:
        """Return what its driver's pool tells; None if nothing."""
        ...


C = TypeVar("C", bound=Counted)


class Ledger(Generic[C]):
    """All instances of one resource in this process, and the counts. Thread: any."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._instances: dict[C, None] = {}  # a set that keeps its order
        self._opened = self._failed = self._closed = self._dropped = 0
        self._hits = self._misses = self._evicted = 0

    def begin(self, instance: C) -> None:
        """Take in an instance whose opening begins."""
        with self._lock:
            self._misses += 1
            self._instances[instance] = None

    def count_opened(self) -> None:
        """Note that an instance is open."""
        with self._lock:
            self._opened += 1

    def count_evicted(self) -> None:
        """Note that an instance is closed for being idle or too many."""
        with self._lock:
            self._evicted += 1

    def end(self, instance: C, *, failed: int = 0, closed: int = 0, dropped: int = 0) -> None:
        """Let an instance go that is no more, and count how it ended."""
        with self._lock:
            if instance in self._instances:
                del self._instances[instance]
                self._hits += instance.hits
            self._failed += failed
            self._closed += closed
            self._dropped += dropped

    def instances(self) -> list[C]:
        """Return the instances there are, oldest first; those being closed are among them."""
        with self._lock:
            return list(self._instances)

    def statistics(self) -> ResourceStatistics:
        """Return the counts."""
        with self._lock:
            instances = list(self._instances)
            counts = ResourceStatistics(
                opened=self._opened,
                failed=self._failed,
                closed=self._closed,
                live=self._opened - self._closed - self._dropped,
                hits=self._hits + sum(each.hits for each in instances),
                misses=self._misses,
                evicted=self._evicted,
                waiting=sum(each.waiting for each in instances),
                in_use=sum(each.leases for each in instances),
            )
        # Not under the lock: a measure that fails emits an event, and who hears it may ask for the counts.
        return replace(counts, instances=tuple(map(_describe, instances)))


def _describe(instance: Counted) -> InstanceStatistics:
    since = instance.since  # read before the time is: another thread may open it meanwhile
    age = time.monotonic() - since
    return InstanceStatistics(instance.home, age, instance.leases, instance.is_current, instance.pool())
