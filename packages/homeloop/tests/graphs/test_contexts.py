"""The documents' manager, contexts, executors and options: thin names over the tiers."""

import asyncio
import logging
import sys
import threading
from typing import Any

import pytest
from graph_runs import go, thread

import homeloop
from homeloop import Isolation
from homeloop._events import IsolatedRunEnded, IsolatedRunStarted, TaskSpilled
from homeloop.adapters.langgraph import (
    LangGraphEventLoopManager,
    ProcessIsolatedLangGraphExecutor,
    _contexts,
    execute_in_isolated_thread,
    execute_langgraph_in_process,
    get_langgraph_manager,
    isolation_from_options,
)
from homeloop.errors import IsolationError, RuntimeClosedError

pytestmark = pytest.mark.needs("postgres")
BEGIN = {"n": 0, "places": []}
TIERS = {
    Isolation.NONE: {"use_thread_isolation": False, "use_process_isolation": False},
    Isolation.CONTEXT: {"use_thread_isolation": True, "use_forced_thread_isolation": False},
    Isolation.THREAD: {"use_thread_isolation": True, "use_forced_thread_isolation": True},
    Isolation.PROCESS: {"use_process_isolation": True},
}


def test_options() -> None:
    """D2: the documented defaults and precedence; other options are somebody else's, texts are refused."""
    for tier, options in TIERS.items():
        assert isolation_from_options({**options, "language": "en"}) is tier
    assert isolation_from_options() is isolation_from_options({}) is Isolation.THREAD
    assert isolation_from_options({"use_forced_thread_isolation": False}) is Isolation.CONTEXT
    assert isolation_from_options({"use_thread_isolation": False}) is Isolation.NONE
    assert (
        isolation_from_options({"use_process_isolation": True, "use_thread_isolation": False}) is Isolation.PROCESS
    )
    with pytest.raises(TypeError, match="'use_process_isolation' must be true or false, got 'false'"):
        isolation_from_options({"use_process_isolation": "false"})


@pytest.mark.parametrize("tier", TIERS)
def test_progress_reaches_the_callers_loop(work: Any, manager: LangGraphEventLoopManager, tier: Isolation) -> None:
    """D2: what nodes report arrives in order, on the caller's loop, before the run returns."""
    told: list[tuple[str, float]] = []
    loops: set[asyncio.AbstractEventLoop] = set()

    async def tell(step: str, percent: float, description: str) -> None:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        told.append((step, percent))

    async def main() -> None:
        await manager.run(work.reporting.ainvoke, BEGIN, options=TIERS[tier], on_progress=tell)
        assert told == [(f"step {n}", 25 * (n + 1)) for n in range(4)]
        assert loops == {asyncio.get_running_loop()}

    go(main)


def test_a_context_isolates_its_block(work: Any, manager: LangGraphEventLoopManager, heard: Any) -> None:
    """D1, D4, D5: resources in the block are its own, nobody else's is closed, and no task outlives it."""

    async def main() -> None:
        outer = await work.identity()
        async with manager.create_isolated_context("analysis_123") as context:
            assert [(each.context_id, each.isolation) for each in manager.contexts()] == [
                ("analysis_123", Isolation.THREAD)
            ]
            assert manager.require_isolation() == "analysis_123"
            assert (await work.adding.ainvoke(BEGIN, thread()))["n"] == 4
            inner = await work.identity()
            assert inner != outer
            left = asyncio.create_task(asyncio.Event().wait(), name="left behind")
            there = await context.run(threading_ident)
            assert there != threading.get_ident()
            assert [item async for item in context.stream(work.numbers, 3)] == [0, 1, 2]
        assert left.cancelled()
        assert await work.identity() == outer
        assert manager.contexts() == ()
        with pytest.raises(IsolationError, match="must run in isolated work"):
            manager.require_isolation()
        with pytest.raises(RuntimeError, match="not open"):
            await context.run(threading_ident)

    go(main)
    (spilled,) = heard(TaskSpilled)
    assert (spilled.task, spilled.ended, spilled.context_id) == ("left behind", True, "analysis_123")
    assert "test_contexts.py" in spilled.created_at


async def threading_ident() -> int:
    """Tell the thread."""
    return threading.get_ident()


def test_a_context_that_fails_is_cleaned_up(manager: LangGraphEventLoopManager) -> None:
    """An error or a cancellation in the block leaves as it is, after the clean-up; a context is entered once."""

    left: list[asyncio.Task[Any]] = []

    async def leave_a_task(context: Any, error: BaseException) -> None:
        async with context:
            left.append(asyncio.create_task(asyncio.Event().wait()))
            raise error

    async def main() -> None:
        for error in (ValueError("mine"), asyncio.CancelledError()):
            context = manager.create_isolated_context("fails", isolation=Isolation.CONTEXT)
            with pytest.raises(type(error)):
                await leave_a_task(context, error)
            assert left.pop().cancelled()
            assert manager.contexts() == ()
            assert homeloop.isolation_of() is None
        with pytest.raises(RuntimeError, match="entered once"):
            async with homeloop.enclosed("twice") as block, block:
                pass  # pragma: no cover

    go(main)


def test_contexts_overlap_and_nest(manager: LangGraphEventLoopManager, work: Any) -> None:
    """Twenty contexts at once on one loop keep to themselves, and an inner one to itself within the outer."""

    async def one(number: int) -> int:
        async with manager.create_isolated_context(f"outer {number}"):
            mine = await work.identity()
            async with manager.create_isolated_context(f"inner {number}"):
                assert await work.identity() != mine
                assert homeloop.isolation_of() == f"inner {number}"
            assert homeloop.isolation_of() == f"outer {number}"
            assert await work.identity() == mine
            held.append(await work.counted.get())  # or its id is used again
            return mine

    held: list[object] = []

    async def main() -> None:
        assert len(set(await asyncio.gather(*(one(number) for number in range(20))))) == 20

    go(main)


def test_detection(work: Any, manager: LangGraphEventLoopManager) -> None:
    """D1, F3: graphs that run outside of isolated work are found by name, those inside are counted only."""
    running, end = asyncio.Event(), asyncio.Event()

    async def wait(state: Any) -> Any:
        running.set()
        await end.wait()
        return await work.add(state)

    graph = work.builder(wait=wait).compile()

    async def main() -> None:
        outside = asyncio.create_task(graph.ainvoke(BEGIN), name="outside")
        await running.wait()
        running.clear()
        assert "outside" in manager.detect().outside
        inside = asyncio.create_task(manager.run(graph.ainvoke, BEGIN, options=TIERS[Isolation.CONTEXT]))
        await running.wait()
        findings = manager.detect()
        assert findings.tasks > len(findings.outside)
        end.set()
        await asyncio.gather(outside, inside)
        assert manager.detect().tasks == 0

    go(main)


def test_threads(work: Any, dsn: str) -> None:
    """D3: execute_in_isolated_thread has the documented signature, of the manager and alone."""

    async def main() -> None:
        own = get_langgraph_manager()
        assert own is get_langgraph_manager()
        for execute in (own.execute_in_isolated_thread, execute_in_isolated_thread):
            ident, total = await execute(work.count_loops, "analysis_1", 1, step=2)
            assert (ident != threading.get_ident(), total) == (True, 3)
        await asyncio.to_thread(own.close)
        assert get_langgraph_manager() is not own

    go(main)


def test_threads_that_ask_at_once_get_one_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads ask first, the process has one manager, and one executor is made."""
    asking = threading.Barrier(8)
    made: list[LangGraphEventLoopManager] = []

    def ask() -> None:
        asking.wait(60)
        made.append(get_langgraph_manager())

    def count(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is LangGraphEventLoopManager.__init__.__code__:
            begun.append(frame.f_code)

    begun: list[Any] = []
    switch = sys.getswitchinterval()
    monkeypatch.delitem(_contexts._default, "manager", raising=False)
    threading.setprofile(count)
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
    finally:
        sys.setswitchinterval(switch)
        threading.setprofile(None)
    assert (len(made), len(set(map(id, made))), len(begun)) == (8, 1, 1)


def test_processes(work: Any, manager: LangGraphEventLoopManager) -> None:
    """D3: a graph is named by its address, in whatever form it is there; steps and nodes report."""
    told: list[tuple[str, float, str]] = []
    steps = {name: (25 * (place + 1), f"{name} done") for place, name in enumerate(work.NODES)}

    async def main() -> None:
        processes = ProcessIsolatedLangGraphExecutor(executor=manager.executor)
        graphs = ("plain", "compiled", "made_here", "building", "make_builder")
        for graph in (*(f"graph_work:{name}" for name in graphs), work.plain):
            result = await processes.execute({"graph": graph, "input": BEGIN}, "analysis_1")
            (place,) = set(result["places"])
            assert (result["n"], place.split()[2]) == (4, "analysis_1")
            assert int(place.split()[0]) in children()
        await processes.execute(
            {"graph": "graph_work:plain", "input": BEGIN, "steps": steps},
            on_progress=lambda *report: told.append(report),
        )
        durable = {"graph": "graph_work:adding", "input": BEGIN, "config": thread(), "durable": True}
        assert (await processes.execute(durable))["n"] == 4
        assert [each async for each in processes.stream({"graph": "graph_work:plain", "input": BEGIN})][-1][
            "write"
        ]["n"] == 4
        processes.close()  # it is the manager's
        assert not manager.executor.is_closed

    go(main)
    assert told == [(name, 25 * (place + 1), f"{name} done") for place, name in enumerate(work.NODES)]


def children() -> set[int]:
    """Return the pids of this process's descendants."""
    import psutil

    return {each.pid for each in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "names no graph"),
        ({"graph": "a:b", "imput": 1}, "unknown keys .'imput'."),
        ({"graph": "graph_work"}, "'package.module:attribute'"),
        ({"graph": "graph_work:compiled", "durable": True}, "must be a LoopLocalGraph"),
        ({"graph": "graph_work:adding", "durable": True, "steps": {"a": (1, "")}}, "reports from its nodes"),
    ],
)
def test_workflow_configs_are_checked(manager: LangGraphEventLoopManager, config: Any, message: str) -> None:
    """What is wrong with a workflow's description is said."""
    with pytest.raises(TypeError, match=message):
        go(manager.processes.execute, config)


def test_the_processs_own_manager(
    manager: LangGraphEventLoopManager, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3: execute_langgraph_in_process uses the process's manager; an executor is closed with its block."""
    monkeypatch.setitem(_contexts._default, "manager", manager)
    assert get_langgraph_manager() is manager
    config = {"graph": "graph_work:plain", "input": BEGIN}
    assert go(execute_langgraph_in_process, config, "analysis_2")["n"] == 4
    with ProcessIsolatedLangGraphExecutor(max_workers=1, preload=["json"]) as own:
        pass
    with pytest.raises(RuntimeClosedError):
        go(own.execute, config)


@pytest.mark.parametrize("tier", TIERS)
def test_log_lines(
    work: Any, manager: LangGraphEventLoopManager, tier: Isolation, caplog: pytest.LogCaptureFixture
) -> None:
    """D6: lines tell tier, context id, thread, pid, loop before and after, as text and as fields."""
    caplog.set_level(logging.DEBUG, "homeloop")

    async def main() -> dict[str, Any]:
        result: dict[str, Any] = await manager.run(
            work.plain.ainvoke, BEGIN, options=TIERS[tier], context_id="analysis_7"
        )
        return result

    pid, ident, _ = go(main)["places"][0].split()
    started, ended = (
        next(record for record in caplog.records if isinstance(getattr(record, "homeloop", None), kind))
        for kind in (IsolatedRunStarted, IsolatedRunEnded)
    )
    place = started.homeloop.place  # type: ignore[attr-defined]
    assert (place.tier, place.context_id, place.pid, place.thread_ident) == (
        tier,
        "analysis_7",
        int(pid),
        int(ident),
    )
    assert (place.loop_before == place.loop_after) is (tier in (Isolation.NONE, Isolation.CONTEXT))
    for record in (started, ended):
        assert f"[{tier} isolation]" in record.getMessage()
        assert f"in context 'analysis_7', thread {ident}, pid {pid}, loop before: loop " in record.getMessage()
    assert "succeeded after" in ended.getMessage()
