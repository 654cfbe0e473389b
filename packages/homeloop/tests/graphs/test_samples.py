"""The LangGraph samples of the source documents run as written, with other import lines."""

import asyncio
import inspect
from typing import Any

import pytest
from graph_runs import go

from homeloop import Isolation
from homeloop._events import CallbackFailed
from homeloop.adapters.langgraph import _contexts
from homeloop.async_utils import (
    EventLoopConsistentCallback,
    IsolatedLangGraphContext,
    LangGraphEventLoopManager,
    ProcessIsolatedLangGraphExecutor,
    ProgressTrackingWorkflow,
    execute_langgraph_in_process,
    get_langgraph_manager,
    isolation_from_options,
    make_loop_consistent_callback,
)

pytestmark = pytest.mark.needs("postgres")
state = {"n": 0, "places": []}
updates: list[tuple[str, int, str]] = []


async def update_database(*progress: Any) -> None:
    """Stand for the table of the documents."""
    await asyncio.sleep(0)
    updates.append(progress)


# Original callback
async def persist_progress(step: str, percent: int, description: str):
    await update_database(step, percent, description)


@pytest.fixture(autouse=True)
def _own_manager(manager: LangGraphEventLoopManager, monkeypatch: pytest.MonkeyPatch) -> None:
    updates.clear()
    monkeypatch.setitem(_contexts._default, "manager", manager)


def test_001_langgraph_event_loop_manager(work: Any) -> None:
    """001, "LangGraph Event Loop Manager" and "For New Development", 1."""
    workflow = work.plain

    async def sample() -> Any:
        manager = get_langgraph_manager()
        async with manager.create_isolated_context("analysis_123") as context:
            # All LangGraph operations run in isolated, consistent event loop
            result = await workflow.ainvoke(state)
        assert isinstance(context, IsolatedLangGraphContext)
        return result

    result = go(sample)
    assert result["n"] == 4
    assert {place.split()[2] for place in result["places"]} == {"analysis_123"}


def test_001_event_loop_consistent_callbacks() -> None:
    """001, "Event Loop Consistent Callbacks", "For New Development", 2, and "Minimal Change Approach"."""

    async def sample() -> None:
        # Enhanced callback with loop consistency
        consistent_callback = make_loop_consistent_callback(persist_progress)

        assert isinstance(consistent_callback, EventLoopConsistentCallback)

        async def elsewhere() -> None:
            await consistent_callback("read", 10, "on another loop")

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        await consistent_callback("write", 20, "here")

    go(sample)
    assert updates == [("read", 10, "on another loop"), ("write", 20, "here")]


def test_001_full_protection(work: Any) -> None:
    """001, "Full Protection" and "Manual Context Creation"."""

    async def sample() -> None:
        manager = get_langgraph_manager()
        async with manager.create_isolated_context("analysis_id"):
            # Existing analysis code here
            assert (await work.adding.ainvoke(state, {"configurable": {"thread_id": "full"}}))["n"] == 4
        async with manager.create_isolated_context("debug_context"):
            # Test code here
            assert manager.require_isolation() == "debug_context"

    go(sample)


def test_001_progress_tracking_workflow(work: Any, heard: Any) -> None:
    """001, "Modified Files", 3: progress is awaited; E1: what fails in a callback does not kill the workflow."""
    steps = {"read": (25, "read"), "write": (100, "written")}
    tracked = ProgressTrackingWorkflow(work.plain, persist_progress, steps=steps)
    assert go(tracked.ainvoke, state)["n"] == 4
    assert updates == [("read", 25, "read"), ("write", 100, "written")]

    async def failing() -> None:
        async def fails(step: str, percent: int, description: str) -> None:
            raise ConnectionError("the table is gone")

        await make_loop_consistent_callback(fails)("read", 1, "")
        with pytest.raises(ConnectionError):
            await make_loop_consistent_callback(fails, on_error="raise")("read", 1, "")

    go(failing)
    assert len(heard(CallbackFailed)) == 2


def test_003_configuration_options() -> None:
    """003, "User Configuration Options" and the usage lines of the four tiers."""
    analysis_options = {
        # Strongest isolation (separate process)
        "use_process_isolation": True,  # Default: False
        # Strong isolation (separate thread)
        "use_thread_isolation": True,  # Default: True
        "use_forced_thread_isolation": True,  # Default: True
        # Disable all isolation (original approach)
        # Set both to False for no isolation
    }
    assert isolation_from_options(analysis_options) is Isolation.PROCESS
    assert isolation_from_options({"use_forced_thread_isolation": True}) is Isolation.THREAD
    tier_3 = {"use_thread_isolation": True, "use_forced_thread_isolation": False}
    assert isolation_from_options(tier_3) is Isolation.CONTEXT
    tier_4 = {"use_thread_isolation": False, "use_process_isolation": False}
    assert isolation_from_options(tier_4) is Isolation.NONE


def test_003_signatures(work: Any) -> None:
    """003, "Added Process-Based Isolation", "Added Forced Thread Isolation": the parameters as they are there."""

    async def execute_in_isolated_thread(self, coro_func, context_id=None, *args, **kwargs):
        """As written."""

    def names(fn: Any) -> list[tuple[str, Any]]:
        return [(each.name, each.default) for each in inspect.signature(fn).parameters.values()]

    assert names(LangGraphEventLoopManager.execute_in_isolated_thread) == names(execute_in_isolated_thread)
    assert names(execute_langgraph_in_process)[:2] == [
        ("workflow_config", inspect.Parameter.empty),
        ("context_id", None),
    ]
    assert inspect.isclass(ProcessIsolatedLangGraphExecutor)

    async def sample() -> None:
        workflow_config = {"graph": "graph_work:plain", "input": state}
        assert (await execute_langgraph_in_process(workflow_config, context_id="analysis_1"))["n"] == 4
        manager = get_langgraph_manager()
        assert (await manager.execute_in_isolated_thread(work.plain.ainvoke, "analysis_2", state))["n"] == 4

    go(sample)
