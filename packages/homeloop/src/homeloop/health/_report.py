"""The report: what every loop of a process is doing, in data that may leave the process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from homeloop._affinity import Affinity
from homeloop._figures import ResourceStatistics
from homeloop.health._pulse import Lag, Stall
from homeloop.runtime import RuntimeStatistics

Status = Literal["healthy", "warning", "critical"]
LoopState = Literal["running", "blocked", "idle", "closed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something that is not as it should be.

    Attributes:
        kind: A word for machines, the same for the same cause; `HealthMonitor` lists them.
        status: How bad it is: ``"warning"`` or ``"critical"``.
        subject: The loop, runtime or resource, by name.
        fact: What was seen.
        advice: What to do.
    """

    kind: str
    status: Status
    subject: str
    fact: str
    advice: str

    def __str__(self) -> str:
        return self.fact if self.advice in self.fact else f"{self.fact}; {self.advice}"


@dataclass(frozen=True, slots=True)
class SizingHint:
    """
    A size that what was measured speaks for.

    Attributes:
        subject: What it is about, by name.
        seen: The most that was wanted at the same time, since the monitor began.
        text: The hint.
    """

    subject: str
    seen: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class LoopHealth:
    """
    One loop.

    Attributes:
        name: Its runtime's, the one it was watched under, or its number.
        owner: ``"runtime"`` if it is one's, ``"watched"`` if the monitor was told of it; ``"unknown"`` loops are
            known by their tasks alone.
        state: Whether it runs; ``"idle"`` if its owner does not run it now.
        lag: How late it answers; None if it was not asked yet.
        utilisation: The share of the time for which it was busy, at least: its thread's CPU time, or what it let
            the monitor wait, whichever is more. None if not known yet.
        tasks: Task objects, ended ones that somebody still refers to included.
        pending: Tasks that have not ended.
        langgraph: Those of them that LangGraph made.
        most: The coroutines that most pending tasks run, with their number.
        stall: What blocks it now.
        last_stall: What blocked it last.
    """

    name: str
    home: Affinity
    owner: Literal["runtime", "watched", "unknown"]
    state: LoopState
    lag: Lag | None
    utilisation: float | None
    tasks: int
    pending: int
    langgraph: int
    most: tuple[tuple[str, int], ...]
    stall: Stall | None
    last_stall: Stall | None


@dataclass(frozen=True, slots=True)
class RuntimeHealth:
    """One runtime: its counts, and the most calls that were in flight when the monitor looked."""

    name: str
    statistics: RuntimeStatistics
    most_in_flight: int


@dataclass(frozen=True, slots=True)
class ResourceHealth:
    """
    One resource.

    Attributes:
        statistics: Its counts.
        most_leases: The most leases of one instance that were held when the monitor looked.
        most_wanted: The most connections of one driver's pool that were in use or waited for then; None if no
            pool of it was ever measured.
    """

    name: str
    statistics: ResourceStatistics
    most_leases: int
    most_wanted: int | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """
    A fault that happened.

    Attributes:
        kind: The finding that it leads to.
        text: What happened.
        at: When, in seconds since the epoch.
        age: How long ago, in seconds.
        advice: What to do.
        stack: What blocked or waited, outermost frame first.
        facts: What else is known, as names and values.
    """

    kind: str
    text: str
    at: float
    age: float
    advice: str = ""
    stack: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HealthReport:
    """
    How the event loops of a process are.

    Attributes:
        status: That of the worst finding; ``"healthy"`` without one.
        monitored: Whether the monitor is started; without it nobody measures lag, or hears of incidents.
        pid: The process.
        taken_at: When, in seconds since the epoch.
        findings: What is wrong, the worst first.
        hints: Sizes that what was measured speaks for.
        loops: By number.
        runtimes: The runtimes that have run, by name.
        resources: `LoopLocal` and its kin, by name.
        incidents: Faults of the last minutes, the latest first.
        counts: How often each kind of event happened since the monitor was started, by the event's name.
    """

    status: Status
    monitored: bool
    pid: int
    taken_at: float
    findings: tuple[Finding, ...]
    hints: tuple[SizingHint, ...]
    loops: tuple[LoopHealth, ...]
    runtimes: tuple[RuntimeHealth, ...]
    resources: tuple[ResourceHealth, ...]
    incidents: tuple[Incident, ...]
    counts: Mapping[str, int]

    @property
    def recommendations(self) -> tuple[str, ...]:
        """What to do, and why; the most urgent first."""
        return (*map(str, self.findings), *map(str, self.hints))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON knows, with the sums that people ask for first."""
        return {
            "status": self.status,
            "recommendations": list(self.recommendations),
            "total_tasks": sum(each.tasks for each in self.loops),
            "pending_tasks": sum(each.pending for each in self.loops),
            "langgraph_tasks": sum(each.langgraph for each in self.loops),
            "foreign_tasks": sum(each.pending for each in self.loops if each.owner != "runtime"),
            "blocked_loops": sum(each.state == "blocked" for each in self.loops),
            "calls_in_flight": sum(each.statistics.in_flight for each in self.runtimes),
            "abandoned_calls": sum(each.statistics.abandoned for each in self.runtimes),
            **asdict(self),
        }
