"""The metrics: what a report tells operators' tools, under names that stay."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from homeloop.health._report import HealthReport, LoopHealth

Kind = Literal["gauge", "counter"]

_GRAVITY = {"healthy": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Metric:
    """
    A figure that is exported.

    Attributes:
        name: As OpenTelemetry writes names.
        kind: A ``"gauge"`` may fall; a ``"counter"`` begins anew with the process, or the loop that it belongs to.
        unit: As OpenTelemetry writes units: ``"s"``, ``"1"``, ``"{task}"``.
        description: What it is, without a full stop.
        labels: The names of the attributes that tell its values apart.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value of a metric, and those of its labels, in their order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """
    How a metric is read of one thing.

    Attributes:
        path: The attributes that lead to it; there is no value if one of them is None.
        together: What is told of several things with the same labels: their sum, or the most.
    """

    metric: Metric
    path: tuple[str, ...]
    together: Callable[[list[float]], float]


Row = tuple[str, Kind, str, str, str]


def _readings(
    prefix: str, labels: tuple[str, ...], rows: Iterable[Row], together: Callable[[list[float]], float] = sum
) -> tuple[_Reading, ...]:
    return tuple(
        _Reading(Metric(prefix + name, kind, unit, description, labels), tuple(path.split(".")), together)
        for name, kind, unit, description, path in rows
    )


_LOOP, _LOOP_LABELS = "asyncio.eventloop.", ("loop", "owner")
_OF_LOOPS = (
    *_readings(
        _LOOP,
        _LOOP_LABELS,
        [
            ("delay.p50", "gauge", "s", "How late the loop answers, median", "lag.p50"),
            ("delay.p99", "gauge", "s", "How late the loop answers, 99th percentile", "lag.p99"),
            ("delay.max", "gauge", "s", "How late the loop answered at worst", "lag.max"),
            ("utilization", "gauge", "1", "Share of the time for which it was busy, at least", "utilisation"),
            ("blocked", "gauge", "s", "For how long it has been blocked, while it is", "stall.seconds"),
        ],
        max,
    ),
    *_readings(
        _LOOP,
        _LOOP_LABELS,
        [
            ("tasks", "gauge", "{task}", "Task objects, ended ones that are kept included", "tasks"),
            ("tasks.pending", "gauge", "{task}", "Tasks that have not ended", "pending"),
            ("tasks.langgraph", "gauge", "{task}", "Pending tasks that LangGraph made", "langgraph"),
        ],
    ),
)

_OF_RUNTIMES = _readings(
    "homeloop.",
    ("runtime",),
    [
        ("calls.in_flight", "gauge", "{call}", "Calls that have begun and not finished", "statistics.in_flight"),
        ("calls.waiting", "gauge", "{call}", "Calls that wait for a place of max_in_flight", "statistics.waiting"),
        ("calls.abandoned", "gauge", "{call}", "Calls that run and nobody waits for", "statistics.abandoned"),
        ("calls.finished", "counter", "{call}", "Calls that finished", "statistics.finished"),
        ("calls.given_up", "counter", "{call}", "Calls that were ever abandoned", "statistics.abandoned_total"),
        ("runtime.restarts", "counter", "{restart}", "Loops that the runtime lost", "statistics.restarts"),
        ("executor.busy", "gauge", "{thread}", "Threads of the executor that work", "statistics.workers.busy"),
        ("executor.size", "gauge", "{thread}", "Threads that the executor may have", "statistics.workers.size"),
        ("executor.queued", "gauge", "{job}", "Jobs that wait for a thread", "statistics.workers.queued"),
    ],
)

_OF_RESOURCES = _readings(
    "homeloop.resource.",
    ("resource",),
    [
        ("live", "gauge", "{instance}", "Instances that are open", "statistics.live"),
        ("in_use", "gauge", "{lease}", "Leases that are held", "statistics.in_use"),
        ("waiting", "gauge", "{caller}", "Callers that wait for an opening", "statistics.waiting"),
        ("opened", "counter", "{instance}", "Instances that were opened", "statistics.opened"),
        ("closed", "counter", "{instance}", "Instances that were closed", "statistics.closed"),
        ("failed", "counter", "{opening}", "Openings that failed", "statistics.failed"),
        ("evicted", "counter", "{instance}", "Instances closed for being idle or too many", "statistics.evicted"),
        ("hits", "counter", "{request}", "Requests for an instance that was there", "statistics.hits"),
        ("misses", "counter", "{request}", "Requests that began an opening", "statistics.misses"),
    ],
)

_OF_POOLS = _readings(
    "homeloop.pool.",
    ("resource",),
    [
        ("size", "gauge", "{connection}", "Connections that there are, idle ones included", "size"),
        ("in_use", "gauge", "{connection}", "Connections that are given out", "in_use"),
        ("limit", "gauge", "{connection}", "Connections that may be given out at the same time", "limit"),
        ("waiting", "gauge", "{caller}", "Callers that wait for a connection", "waiting"),
    ],
)

_STATUS = Metric("homeloop.health.status", "gauge", "{status}", "0 if healthy, 1 with a warning, 2 if critical")
_FINDINGS = Metric("homeloop.health.findings", "gauge", "{finding}", "What is wrong now, by its kind", ("kind",))
_EVENTS = Metric("homeloop.events", "counter", "{event}", "Events since the monitor was started", ("event",))

METRICS: tuple[Metric, ...] = (
    _STATUS,
    _FINDINGS,
    *(reading.metric for reading in _OF_LOOPS),
    *(reading.metric for reading in _OF_RUNTIMES),
    *(reading.metric for reading in _OF_RESOURCES),
    *(reading.metric for reading in _OF_POOLS),
    _EVENTS,
)
"""All that are exported."""


def measure(report: HealthReport) -> Iterator[Measurement]:
    """
    Return what a report says, as values of metrics, each metric's together.

    Loops and the like of one name are told together, and so are all loops that nobody told of, as each
    `asyncio.run` has one: the number of values stays the same as long as a process runs.
    """
    yield Measurement(_STATUS, (), _GRAVITY[report.status])
    for kind, number in Counter(finding.kind for finding in report.findings).items():
        yield Measurement(_FINDINGS, (kind,), number)
    yield from _read(_OF_LOOPS, [(_loop_labels(loop), loop) for loop in report.loops])
    yield from _read(_OF_RUNTIMES, [((runtime.name,), runtime) for runtime in report.runtimes])
    yield from _read(_OF_RESOURCES, [((resource.name,), resource) for resource in report.resources])
    yield from _read(
        _OF_POOLS,
        [((each.name,), instance.pool) for each in report.resources for instance in each.statistics.instances],
    )
    for event, number in report.counts.items():
        yield Measurement(_EVENTS, (event,), number)


def _loop_labels(loop: LoopHealth) -> tuple[str, ...]:
    return ("" if loop.owner == "unknown" else loop.name, loop.owner)


def _read(readings: Iterable[_Reading], things: Sequence[tuple[tuple[str, ...], object]]) -> Iterator[Measurement]:
    """Read each figure of all things, which come with their labels; None has no figures."""
    for reading in readings:
        values: dict[tuple[str, ...], list[float]] = {}
        for labels, thing in things:
            value: Any = thing  # Any: attributes, by name
            for attribute in reading.path:
                value = None if value is None else getattr(value, attribute)
            if value is not None:
                values.setdefault(labels, []).append(value)
        for labels, together in values.items():
            yield Measurement(reading.metric, labels, reading.together(together))
