"""F3, the report: tasks, calls, resources and faults, each counted, judged and told with what to do."""

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import pytest
from langgraph.graph import StateGraph

from homeloop import (
    Affinity,
    HealthMonitor,
    HealthReport,
    HealthThresholds,
    Lag,
    LoopHealth,
    LoopLocal,
    LoopRuntime,
    RuntimeHealth,
    RuntimeStatistics,
    WorkerStatistics,
    bind_callback,
)
from homeloop._events import (
    CallAbandoned,
    CallbackFailed,
    CallbackRaised,
    Event,
    InterpreterStalled,
    LoopBlocked,
    LoopFault,
    LoopStalled,
    ResourceCloseFailed,
    ResourceDropped,
    RuntimeDied,
    TaskLeft,
    TaskSpilled,
    WorkerEnded,
    WorkerLost,
    WorkerStarted,
    emit,
)
from homeloop._provenance import LoopFact, Place
from homeloop.errors import CallTimeoutError
from homeloop.health import _census
from homeloop.health._advice import ADVICE
from homeloop.health._census import Census, LoopTasks, references_asked_for, references_known
from homeloop.health._incidents import KINDS
from homeloop.health._judgement import judge

BOUND = 20.0  # seconds
Settle = Callable[[LoopRuntime], None]
HOME = Affinity(1, 7, "asyncio.SelectorEventLoop", "worker")


def kinds(report: HealthReport, subject: str) -> set[str]:
    """Return the kinds of what was found of one loop, runtime or resource; other tests may have left theirs."""
    return {finding.kind for finding in report.findings if finding.subject == subject}


def loop_of(report: HealthReport, name: str = "test") -> LoopHealth:
    """Return what a report says of one loop."""
    (found,) = (loop for loop in report.loops if loop.name == name)
    return found


async def poll_for_ever(release: asyncio.Event) -> None:
    """A task that somebody starts and nobody ends."""
    await release.wait()


def test_f3_more_than_fifty_tasks_are_told_with_what_they_run(
    runtime: LoopRuntime, patient: HealthMonitor, settle: Settle
) -> None:
    """By default 50 tasks are fine and 51 a warning, which names the coroutine; the limit can be raised."""
    tasks: list[asyncio.Task[None]] = []

    async def start(number: int) -> None:
        release = asyncio.Event()
        tasks.extend(asyncio.create_task(poll_for_ever(release)) for _ in range(number))

    runtime.run(start, 50)
    settle(runtime)
    assert kinds(patient.report(), "test") == set()
    runtime.run(start, 1)
    settle(runtime)
    report = patient.report()
    loop = loop_of(report)
    assert (loop.pending, loop.most) == (51, (("poll_for_ever", 51),))
    assert (report.status, kinds(report, "test")) == ("warning", {"tasks-piling-up"})
    assert any("51 of poll_for_ever()" in text for text in report.recommendations)
    patient.thresholds = HealthThresholds(tasks=1000)
    assert kinds(patient.report(), "test") == set()


def test_f3_ended_tasks_that_are_kept_are_no_pending_ones(
    runtime: LoopRuntime, patient: HealthMonitor, settle: Settle
) -> None:
    """The total counts what is in memory, pending only what has not ended."""
    kept: list[asyncio.Task[None]] = []

    async def start_and_wait() -> None:
        kept.extend(asyncio.create_task(asyncio.sleep(0)) for _ in range(3))
        await asyncio.gather(*kept)

    runtime.run(start_and_wait)
    settle(runtime)
    loop = loop_of(patient.report())
    assert (loop.tasks, loop.pending) == (3, 0)


class State(TypedDict):
    """What the graph works on."""

    n: int


def test_f3_tasks_of_langgraph_are_told_apart(
    runtime: LoopRuntime, patient: HealthMonitor, settle: Settle
) -> None:
    """A graph's own tasks count as LangGraph's, also the one that homeloop runs it in; others do not."""
    inside, release = threading.Event(), asyncio.Event()

    async def node(state: State) -> State:
        inside.set()
        await release.wait()
        return {"n": state["n"] + 1}

    building: Any = StateGraph(State)  # Any: its types are its own affair
    building.add_node("node", node)
    building.set_entry_point("node")
    graph = building.compile()

    async def start_another() -> asyncio.Task[None]:
        return asyncio.create_task(poll_for_ever(release))

    another = runtime.run(start_another)
    running = runtime.submit(graph.ainvoke, {"n": 1})
    assert inside.wait(BOUND)
    settle(runtime)
    loop = loop_of(patient.report())
    assert loop.langgraph >= 2, loop.most
    assert loop.pending == loop.langgraph + 1, loop.most

    async def let_go() -> None:
        release.set()
        await another

    runtime.run(let_go)
    assert running.result(BOUND) == {"n": 2}


def test_f3_tasks_of_foreign_loops_are_told_apart(patient: HealthMonitor) -> None:
    """A loop that nobody told of is found by its tasks; it is neither a runtime's nor watched."""
    with LoopRuntime(name="ours") as ours:

        async def ask() -> HealthReport:
            release = asyncio.Event()
            task = asyncio.create_task(poll_for_ever(release))
            await asyncio.sleep(0)
            report = await asyncio.to_thread(patient.report)
            release.set()
            await task
            return report

        ours.start()
        report = asyncio.run(ask())
        assert loop_of(report, "ours").owner == "runtime"
        (foreign,) = (loop for loop in report.loops if loop.owner == "unknown" and loop.state == "running")
        assert foreign.pending == 2
        figures = report.as_dict()
        assert figures["foreign_tasks"] == figures["pending_tasks"] >= 2


def test_f3_tasks_on_a_closed_loop_are_told(patient: HealthMonitor) -> None:
    """They will never end, and whoever waits for them waits for ever."""
    loop = asyncio.new_event_loop()
    release = asyncio.Event()
    task = loop.create_task(poll_for_ever(release))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    texts = patient.report().recommendations
    assert any("is closed" in text and "1 of poll_for_ever()" in text for text in texts)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()


def test_calls_in_flight_waiting_and_abandoned_are_told(patient: HealthMonitor) -> None:
    """Each with the runtime's name, and how many places would have been enough."""

    async def ignores_its_cancellation() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def look_from_within() -> HealthReport:
        try:
            return patient.report()
        finally:
            release.set()

    release = asyncio.Event()
    with LoopRuntime(name="full", grace=0.0, max_in_flight=1) as full:
        with pytest.raises(CallTimeoutError):
            full.run(ignores_its_cancellation, timeout=0.01)
        waiting = full.submit(asyncio.sleep, 0)
        residence = full.residence()
        assert residence is not None
        # Not by a call, which would wait for a place, too.
        report = asyncio.run_coroutine_threadsafe(look_from_within(), residence.loop).result(BOUND)
        assert kinds(report, "full") == {"call-abandoned", "calls-waiting"}
        text = " ".join(report.recommendations)
        assert "ignores_its_cancellation" in text
        assert "max_in_flight=2" in text
        assert report.as_dict()["abandoned_calls"] == 1
        waiting.result(BOUND)


def test_workers_that_are_too_few_are_told(
    runtime: LoopRuntime, patient: HealthMonitor, gate: threading.Event
) -> None:
    """Jobs of `asyncio.to_thread` that wait for a thread are a finding, with the number that would do."""
    started = threading.Semaphore(0)

    def work() -> None:
        started.release()
        gate.wait(BOUND)

    async def crowd(number: int) -> None:
        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(number)))

    runtime.start()
    figures = runtime.statistics().workers
    assert figures is not None
    assert (figures.busy, figures.queued) == (0, 0)
    crowded = runtime.submit(crowd, figures.size + 3)
    for _ in range(figures.size):
        assert started.acquire(timeout=BOUND)
    runtime.run(asyncio.sleep, 0)  # the other jobs are queued by now
    report = patient.report()
    assert kinds(report, "test") == {"workers-short"}
    assert [hint.seen for hint in report.hints if hint.subject == "test"] == [figures.size + 3]
    gate.set()
    crowded.result(BOUND)


def test_f3_resources_are_counted_and_sized(runtime: LoopRuntime, patient: HealthMonitor) -> None:
    """The most leases of one instance speak for a pool's size; callers that wait for an opening are a finding."""
    opening, leases = threading.Event(), 3

    async def make() -> object:
        opening.set()
        await release.wait()
        return object()

    release, all_have = asyncio.Event(), threading.Semaphore(0)
    name = f"orders {id(release)}"
    pools = LoopLocal(make, name=name)

    async def hold() -> None:
        async with pools():
            all_have.release()
            await held.wait()

    held = asyncio.Event()
    holders = [runtime.submit(hold) for _ in range(leases)]
    assert opening.wait(BOUND)
    runtime.run(asyncio.sleep, 0)  # all of them wait by now
    report = patient.report()
    assert kinds(report, name) == {"resource-waiting"}
    assert f"{leases} callers wait for {name}" in " ".join(report.recommendations)

    async def set_(event: asyncio.Event) -> None:
        event.set()

    runtime.run(set_, release)
    for _ in holders:
        assert all_have.acquire(timeout=BOUND)
    (orders,) = (each for each in patient.report().resources if each.name == name)
    assert (orders.most_leases, orders.statistics.in_use) == (leases, leases)
    runtime.run(set_, held)
    for holder in holders:
        holder.result(BOUND)
    report = patient.report()
    (hint,) = (each for each in report.hints if each.subject == name)
    assert (hint.seen, kinds(report, name)) == (leases, set())


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (CallAbandoned("r", "f()", (), ()), "call-abandoned"),
        (CallbackFailed("f()", HOME, "ValueError()"), "callback-failed"),
        (LoopBlocked("c", "thread", "f()", HOME, 3.0, ("a.py:1 in f",)), "loop-blocked"),
        (LoopFault("two-live-loops", "asyncio.Lock", "…"), "loop-fault"),
        (ResourceCloseFailed("pools", HOME, "TimeoutError()"), "resource-lost"),
        (ResourceDropped("pools", HOME), "resource-lost"),
        (RuntimeDied("r", HOME, "OSError()"), "runtime-lost"),
        (TaskLeft("r", "f()", ()), "task-left"),
        (TaskSpilled("c", "thread", "f()", "Task-1", "a.py:1", (), True), "task-left"),
        (WorkerLost("default", 2, 3, -9), "worker-lost"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else value,
)
def test_faults_are_findings_for_a_while(event: Event, found: str, patient: HealthMonitor) -> None:
    """What an event told of is a finding with advice, counted, and of the past once the memory is over."""
    patient.start()
    emit(event)
    emit(event)
    report = patient.report()
    (finding,) = (each for each in report.findings if "before: " in each.fact)
    assert (finding.kind, finding.status) == (found, "warning")
    assert "and 1 more like it before" in finding.fact
    assert finding.advice
    assert [incident.kind for incident in report.incidents] == [found, found]
    incident = report.incidents[0]
    assert not incident.text.startswith(type(event).__name__), "it is told in words"
    assert incident.advice == finding.advice
    assert report.counts == {type(event).__name__: 2}
    patient.thresholds = HealthThresholds(memory=1e-9)
    assert patient.report().incidents == ()


def test_a_callbacks_error_that_its_caller_gets_is_no_incident(
    runtime: LoopRuntime, patient: HealthMonitor
) -> None:
    """As the advice says, the caller handles it. It is counted, and logged as a warning."""
    patient.start()

    def ends() -> None:
        raise ValueError("an expected end")

    async def calls() -> None:
        with pytest.raises(ValueError, match="expected"):
            await bind_callback(ends, on_error="raise")()

    runtime.run(calls)
    report = patient.report()
    assert report.incidents == ()
    assert report.counts["CallbackRaised"] == 1
    assert CallbackRaised.level == logging.WARNING


def test_every_fault_has_advice() -> None:
    """No kind of incident is without one."""
    assert set(KINDS.values()) <= set(ADVICE)


def test_f3_an_incident_has_what_is_known_of_it(patient: HealthMonitor) -> None:
    """Its stack, innermost last, and facts with names: of a fault that tracing saw, the loops and places."""
    patient.start()
    loop = LoopFact("uvloop.Loop", "running", thread="api", made_at=Place("api.py", 3, "main"))
    emit(LoopFault("two-live-loops", "asyncio.Lock", "told", Place("a.py", 1, "f"), None, loop, None))
    emit(LoopStalled("api", HOME, 3.0, ("a.py:1 in f", "b.py:2 in g"), None))
    emit(InterpreterStalled(2.0, (("worker", "c.py:1 in h", "c.py:2 in i"),)))
    stalled, blocked, fault = patient.report().incidents
    assert stalled.stack == ("worker: c.py:1 in h", "worker: c.py:2 in i")
    assert blocked.stack == ("a.py:1 in f", "b.py:2 in g")
    assert dict(blocked.facts)["seconds"] == "3.0"
    facts = dict(fault.facts)
    assert facts["lives on"] == "uvloop.Loop, running, thread 'api', made at api.py:3 in main"
    assert facts["used at"] == "a.py:1 in f"
    assert facts["explained by"] == "homeloop explain two-live-loops"


def test_f3_worker_recycling_is_counted(patient: HealthMonitor) -> None:
    """Workers that ended as they were told to are counted, and no fault."""
    patient.start()
    emit(WorkerStarted("default", 2))
    emit(WorkerEnded("default", 2, 100, "recycled"))
    report = patient.report()
    assert (report.incidents, report.counts) == ((), {"WorkerStarted": 1, "WorkerEnded": 1})


def loop_with(**figures: Any) -> LoopHealth:
    """Return a loop as it should be, but for these figures."""
    fine: dict[str, Any] = {
        "name": "r",
        "home": HOME,
        "owner": "runtime",
        "state": "running",
        "lag": Lag(0.001, 0.002, 0.003, 100),
        "utilisation": 0.1,
        "tasks": 0,
        "pending": 0,
        "langgraph": 0,
        "most": (),
        "stall": None,
        "last_stall": None,
    }
    return LoopHealth(**{**fine, **figures})


@pytest.mark.parametrize(
    ("figures", "found"),
    [
        ({}, []),
        ({"lag": Lag(0.01, 0.1, 5.0, 100)}, []),
        ({"lag": Lag(0.01, 0.11, 5.0, 100)}, ["loop-lagging"]),
        ({"lag": None, "utilisation": None}, []),
        ({"utilisation": 0.95}, ["loop-busy"]),
    ],
)
def test_lag_and_load_beyond_the_thresholds_are_findings(figures: dict[str, Any], found: list[str]) -> None:
    """The 99th percentile counts, not the worst; what is not known yet is no finding."""
    findings = judge([loop_with(**figures)], (), (), (), HealthThresholds())
    assert [finding.kind for finding in findings] == found


def test_threads_that_are_all_busy_are_no_finding_as_long_as_nobody_waits() -> None:
    """Only jobs that wait are."""
    figures = RuntimeStatistics(HOME, 0, 0, 0, 0, workers=WorkerStatistics(busy=6, size=6, queued=0))
    assert judge((), [RuntimeHealth("r", figures, 0)], (), (), HealthThresholds()) == ()


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"tasks": 0}, ValueError),
        ({"lag": -1.0}, ValueError),
        ({"blocked": float("nan")}, ValueError),
        ({"blocked": float("inf")}, ValueError),
        ({"utilisation": "90 %"}, TypeError),
        ({"memory": True}, TypeError),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(limits: dict[str, Any], error: type[Exception]) -> None:
    """By name."""
    with pytest.raises(error, match=next(iter(limits))):
        HealthThresholds(**limits)


def test_the_report_is_json(runtime: LoopRuntime, patient: HealthMonitor) -> None:
    """All of it can be sent."""
    runtime.run(asyncio.sleep, 0)
    figures = json.loads(json.dumps(patient.report().as_dict()))
    assert figures["status"] in ("healthy", "warning")
    assert "test" in [loop["name"] for loop in figures["loops"]]


@pytest.mark.parametrize("ask", [references_known, references_asked_for])
def test_both_ways_to_find_tasks_find_the_same(ask: Callable[..., Any]) -> None:
    """The one copies what asyncio reads, the other asks asyncio for each loop."""

    async def main() -> None:
        loop, release = asyncio.get_running_loop(), asyncio.Event()
        tasks = {asyncio.create_task(poll_for_ever(release)) for _ in range(5)}
        here = {task for each in ask((loop,)) if (task := each()).get_loop() is loop}
        assert here == {*tasks, asyncio.current_task()}
        assert Census().take((loop,))[loop].pending == {"poll_for_ever": 5, partial(main).func.__qualname__: 1}
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


@pytest.mark.parametrize("find", [references_known, references_asked_for])
def test_a_census_that_is_taken_again_counts_as_the_first(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that were seen before and have ended, that are gone, that are new, and one that is not of C."""
    monkeypatch.setattr(_census, "find_references", find)
    sees_ended = find is references_known

    async def main() -> None:
        loop, census = asyncio.get_running_loop(), Census()

        def count() -> tuple[int, dict[str, int]]:
            taken: LoopTasks = census.take((loop,))[loop]
            assert main_name in taken.pending
            return taken.total - 1, {name: n for name, n in taken.pending.items() if name != main_name}

        first, second = asyncio.Event(), asyncio.Event()
        kept = [asyncio.create_task(poll_for_ever(first)) for _ in range(3)]
        rest = [asyncio.create_task(poll_for_ever(second)) for _ in range(2)]
        for _ in range(2):
            assert count() == (5, {"poll_for_ever": 5})
        first.set()
        await asyncio.wait(kept)
        assert count() == (5 if sees_ended else 2, {"poll_for_ever": 2})
        kept.clear()
        gc.collect()
        python_task: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        rest.append(python_task(poll_for_ever(second)))
        rest.append(asyncio.create_task(asyncio.sleep(60)))
        assert count() == (4, {"poll_for_ever": 3, "sleep": 1})
        rest.pop().cancel()
        second.set()
        await asyncio.gather(*rest)

    main_name = main.__qualname__
    asyncio.run(main())


def test_a_census_forgets_tasks_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes tasks for ever does not make it grow."""
    monkeypatch.setattr(_census, "_FEW", 10)

    async def main() -> None:
        loop, census = asyncio.get_running_loop(), Census()
        for _ in range(20):
            await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0)) for _ in range(10)))
            census.take((loop,))
            await asyncio.gather(*(tasks := [asyncio.create_task(asyncio.sleep(0)) for _ in range(10)]))
            census.take((loop,))
            del tasks
            assert len(census._kind_of) <= 2 * 30 + 10

    asyncio.run(main())
