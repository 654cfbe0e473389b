"""What there is of resources and jobs: the records, and those who can tell them to whoever watches."""

from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol
from weakref import ref

from homeloop._affinity import Affinity


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """
    What a driver's pool has and gives.

    Attributes:
        size: Connections that it has now, idle ones included.
        in_use: Those that are given out, or being opened for somebody.
        limit: The most that it gives out at the same time; None if there is no limit.
        waiting: Callers that wait for one; None if nobody ever waits, for the driver raises instead.
    """

    size: int
    in_use: int
    limit: int | None
    waiting: int | None

    @property
    def is_exhausted(self) -> bool:
        """Whether the next one who asks has to wait behind others, or is refused."""
        return self.limit is not None and self.in_use >= self.limit and self.waiting != 0


@dataclass(frozen=True, slots=True)
class InstanceStatistics:
    """
    One instance.

    Attributes:
        home: The loop it lives on.
        age: Seconds since it was open, or since its opening began.
        leases: How many hold it by ``async with`` now.
        is_open: Whether it is handed out: not when it is still opening, nor when it is being closed.
        pool: What its driver's pool tells, while it is open; None if nothing can measure it.
    """

    home: Affinity
    age: float
    leases: int
    is_open: bool
    pool: PoolStatistics | None = None


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


class ResourceSource(Protocol):
    """A resource that can tell how it is, on any thread."""

    name: str

    def statistics(self) -> ResourceStatistics:
        """Return the counts of this process."""
        ...


_sources: set[ref[ResourceSource]] = set()


def add_resource_source(source: ResourceSource) -> None:
    """Let those who watch know of a resource, as long as it lives. Thread: any."""
    _sources.add(ref(source, _sources.discard))


def resource_sources() -> tuple[ResourceSource, ...]:
    """Return the resources that there are. Thread: any."""
    return tuple(source for each in tuple(_sources) if (source := each()) is not None)


ReadLabels = Callable[[Context], Mapping[str, str]]
_label_readers: tuple[ReadLabels, ...] = ()


def label_tasks(read: ReadLabels) -> Callable[[], None]:
    """
    Tell what tasks work for, to whoever looks at them: the page of the health monitor shows it under *jobs*.

    Args:
        read: Is given the context of a task, to look into with `contextvars.Context.get`, and returns words and
            values, such as ``{"order": "4711"}``, or nothing. Called on a thread of the monitor's, while somebody
            looks; it must return soon and change nothing. An error of its counts as nothing.

    Returns:
        A function that takes it back; calling it twice is harmless.

    Thread: any.
    """
    global _label_readers
    _label_readers = (*(each for each in _label_readers if each is not read), read)

    def forget() -> None:
        global _label_readers
        _label_readers = tuple(each for each in _label_readers if each is not read)

    return forget


def labels_of(context: Context) -> dict[str, str]:
    """Return what is told of a task with this context. Thread: any."""
    found: dict[str, str] = {}
    for read in _label_readers:
        try:
            found.update({str(name): str(value) for name, value in read(context).items()})
        except Exception:  # noqa: S110 - somebody else's, on a live context: the others are told all the same
            pass
    return found
