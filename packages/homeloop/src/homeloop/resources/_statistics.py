"""What happened to a resource in this process, and what there is of it now."""

import time
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from homeloop._affinity import Affinity
from homeloop.runtime import allocate_lock


@dataclass(frozen=True, slots=True)
class InstanceStatistics:
    """
    One instance.

    Attributes:
        home: The loop it lives on.
        age: Seconds since it was open, or since its opening began.
        leases: How many hold it by ``async with`` now.
        is_open: Whether it is handed out: not when it is still opening, nor when it is being closed.
    """

    home: Affinity
    age: float
    leases: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """
    The counts of one resource in this process, all loops and scopes together.

    Attributes:
        opened: Instances that were opened.
        failed: Openings that failed.
        closed: Instances that were closed, or let go because they would not close.
        live: Instances that are open now, those that wait to be closed included.
        hits: How often somebody asked for an instance that was there, or was being opened already.
        misses: How often somebody asked and an opening began.
        evicted: Instances that were closed for being idle or too many.
        waiting: Callers that wait for an opening now.
        in_use: Leases that are held now.
        instances: Those there are now, oldest first.
    """

    opened: int = 0
    failed: int = 0
    closed: int = 0
    live: int = 0
    hits: int = 0
    misses: int = 0
    evicted: int = 0
    waiting: int = 0
    in_use: int = 0
    instances: tuple[InstanceStatistics, ...] = ()


class Counted(Protocol):
    """What the ledger reads of an instance, on any thread."""

    home: Affinity
    since: float
    leases: int
    waiting: int
    hits: int
    is_current: bool


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
            return ResourceStatistics(
                opened=self._opened,
                failed=self._failed,
                closed=self._closed,
                live=self._opened - self._closed - self._dropped,
                hits=self._hits + sum(each.hits for each in instances),
                misses=self._misses,
                evicted=self._evicted,
                waiting=sum(each.waiting for each in instances),
                in_use=sum(each.leases for each in instances),
                instances=tuple(map(_describe, instances)),
            )


def _describe(instance: Counted) -> InstanceStatistics:
    since = instance.since  # read before the time is: another thread may open it meanwhile
    return InstanceStatistics(instance.home, time.monotonic() - since, instance.leases, instance.is_current)
