"""The judgement: which figures are findings, and what to do about them. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from homeloop.health._advice import ADVICE
from homeloop.health._report import (
    Finding,
    Incident,
    LoopHealth,
    ResourceHealth,
    RuntimeHealth,
    SizingHint,
    Status,
)
from homeloop.health._thresholds import HealthThresholds

_LASTING = frozenset({"loop-blocked", "call-abandoned"})
"""Faults that begin with an event and are seen as long as they last: they are not told twice."""


def judge(
    loops: Iterable[LoopHealth],
    runtimes: Iterable[RuntimeHealth],
    resources: Iterable[ResourceHealth],
    incidents: Sequence[Incident],
    thresholds: HealthThresholds,
) -> tuple[Finding, ...]:
    """Return what is not as it should be, the worst first."""
    found = [
        *(finding for loop in loops for finding in _of_loop(loop, thresholds)),
        *(finding for runtime in runtimes for finding in _of_runtime(runtime)),
        *(finding for resource in resources for finding in _of_resource(resource)),
    ]
    lasting = {finding.kind for finding in found} & _LASTING
    found += _of_incidents([incident for incident in incidents if incident.kind not in lasting])
    return tuple(sorted(found, key=lambda finding: finding.status != "critical"))


def status_of(findings: Iterable[Finding]) -> Status:
    """Return the status of the worst of them."""
    kinds = {finding.status for finding in findings}
    return "critical" if "critical" in kinds else "warning" if kinds else "healthy"


def size(runtimes: Iterable[RuntimeHealth], resources: Iterable[ResourceHealth]) -> tuple[SizingHint, ...]:
    """Return the sizes that what was measured speaks for."""
    return (
        *(hint for runtime in runtimes for hint in _size_runtime(runtime)),
        *(hint for resource in resources for hint in _size_resource(resource)),
    )


def _of_loop(loop: LoopHealth, thresholds: HealthThresholds) -> Iterator[Finding]:
    where = f"{loop.name!r} ({loop.home})"
    if loop.stall is not None:
        task = f" in task {loop.stall.task}" if loop.stall.task else ""
        yield Finding(
            "loop-blocked",
            "critical",
            loop.name,
            f"{where} has not run for {loop.stall.seconds:.1f} s, blocked{task} at "
            f"{' > '.join(loop.stall.blocked_at) or 'an unknown place'}",
            ADVICE["loop-blocked"],
        )
    elif loop.lag is not None and loop.lag.p99 > thresholds.lag:
        yield Finding(
            "loop-lagging",
            "warning",
            loop.name,
            f"{where} answers after {loop.lag.p99 * 1000:.0f} ms (99th percentile; median "
            f"{loop.lag.p50 * 1000:.0f} ms, worst {loop.lag.max * 1000:.0f} ms)",
            "find what computes or blocks there, with a profiler or PYTHONASYNCIODEBUG=1",
        )
    if loop.utilisation is not None and loop.utilisation > thresholds.utilisation:
        yield Finding(
            "loop-busy",
            "warning",
            loop.name,
            f"{where} is busy for {loop.utilisation:.0%} of the time",
            "move computing to asyncio.to_thread() or a process, or share the work among more processes",
        )
    most = ", ".join(f"{number} of {name}()" for name, number in loop.most)
    if loop.state == "closed":
        yield Finding(
            "task-left",
            "warning",
            loop.name,
            f"{where} is closed, with {loop.pending} tasks that never ended: {most}",
            ADVICE["task-left"],
        )
    elif loop.pending > thresholds.tasks:
        yield Finding(
            "tasks-piling-up",
            "warning",
            loop.name,
            f"{where} has {loop.pending} pending tasks, more than {thresholds.tasks}: {most}",
            "bound them with a semaphore or max_in_flight, or raise the threshold if that is how it should be",
        )


def _of_runtime(runtime: RuntimeHealth) -> Iterator[Finding]:
    figures = runtime.statistics
    if figures.abandoned:
        names = ", ".join(sorted({call.what for call in figures.abandoned_calls}))
        yield Finding(
            "call-abandoned",
            "warning",
            runtime.name,
            f"{figures.abandoned} calls still run on {runtime.name!r} that nobody waits for any more: {names}",
            ADVICE["call-abandoned"],
        )
    if figures.waiting:
        yield Finding(
            "calls-waiting",
            "warning",
            runtime.name,
            f"{figures.waiting} calls wait for one of the places that calls on {runtime.name!r} may have",
            "raise max_in_flight, or have fewer callers",
        )
    if figures.workers is not None and figures.workers.queued and figures.workers.busy >= figures.workers.size:
        yield Finding(
            "workers-short",
            "warning",
            runtime.name,
            f"{figures.workers.queued} jobs wait for one of the {figures.workers.size} threads that "
            f"asyncio.to_thread() has on {runtime.name!r}",
            "give blocking work that takes long an executor of its own",
        )


def _of_resource(resource: ResourceHealth) -> Iterator[Finding]:
    figures = resource.statistics
    if figures.waiting:
        yield Finding(
            "resource-waiting",
            "warning",
            resource.name,
            f"{figures.waiting} callers wait for {resource.name} to be opened",
            "open it before it is needed, with warm(), and see whether its server answers",
        )

    exhausted = [each.pool for each in figures.instances if each.pool is not None and each.pool.is_exhausted]
    if exhausted:
        worst = max(exhausted, key=lambda pool: pool.waiting or 0)
        others = f", and {len(exhausted) - 1} other pools of it are exhausted" if len(exhausted) > 1 else ""
        wait = "the next one is refused" if worst.waiting is None else f"{worst.waiting} wait"
        yield Finding(
            "pool-exhausted",
            "warning",
            resource.name,
            f"pool {resource.name} exhausted: {worst.in_use} of {worst.limit} in use, {wait}{others}",
            "hold a connection only while it is used, and not across other awaits, or raise the pool's limit",
        )


def _of_incidents(incidents: Sequence[Incident]) -> Iterator[Finding]:
    numbers = Counter(incident.kind for incident in incidents)
    for kind, number in numbers.items():
        latest = next(incident for incident in incidents if incident.kind == kind)
        others = f", and {number - 1} more like it before" if number > 1 else ""
        yield Finding(
            kind,
            "warning",
            "",
            f"{latest.age:.0f} s ago{others}: {latest.text}",
            ADVICE[kind],
        )


def _size_runtime(runtime: RuntimeHealth) -> Iterator[SizingHint]:
    figures = runtime.statistics
    if figures.waiting:
        wanted = runtime.most_in_flight + figures.waiting
        yield SizingHint(
            runtime.name,
            wanted,
            f"{runtime.name!r}: {wanted} calls wanted to be in flight at the same time; max_in_flight={wanted} "
            "makes none of them wait",
        )
    if figures.workers is not None and figures.workers.queued:
        threads = figures.workers.busy + figures.workers.queued
        yield SizingHint(
            runtime.name, threads, f"{runtime.name!r}: {threads} threads would leave no job of to_thread() waiting"
        )


def _size_resource(resource: ResourceHealth) -> Iterator[SizingHint]:
    wanted, what = resource.most_wanted, "connections"
    if wanted is None:
        wanted, what = resource.most_leases, "leases of one instance"
    pools = (each.pool for each in resource.statistics.instances if each.pool is not None)
    limit = min((pool.limit for pool in pools if pool.limit is not None), default=wanted)
    if wanted > limit:
        text = f"{wanted} {what} were wanted at the same time, and the pool gives {limit}; a limit of {wanted}"
    else:
        text = f"at most {wanted} {what} at the same time; a pool of that size"
    if wanted > 1:
        yield SizingHint(resource.name, wanted, f"{resource.name}: {text} makes nobody wait")
