"""WorkflowEngine: workflows by name from sync and from async code."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import uuid4

import pytest

import homeloop
from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.ports import InvalidInputError, WorkflowError
from workflow_service.workflows.workflow_engine import WorkflowEngine

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

TEXT = """\
steps:
  a: {type: external_service, service: s, operation: a}
  b: {type: external_service, service: s, operation: b, needs: [a]}
output: {all: "${{ [steps.a.data, steps.b.data] }}"}
"""


@pytest.fixture
def engine(bench: Any) -> WorkflowEngine:
    """One workflow, whose services answer."""
    bench.services.says("s.a", 1)
    bench.services.says("s.b", 2)
    return WorkflowEngine({"tried": bench.workflow(TEXT)}, homeloop.run)


def test_a_workflow_runs_from_sync_code(engine: WorkflowEngine, bench: Any, told: Any) -> None:
    """Again and again on the loop that stays; steps are told; nothing is kept."""
    report = told()
    for _ in range(3):
        assert engine.execute("tried", {}, user_id="alice", report=report) == {"all": [1, 2]}
    assert report.names == ["a", "b"] * 3
    assert bench.services.open_now == 0


def test_a_workflow_runs_from_async_code(engine: WorkflowEngine, run: Run) -> None:
    """On the running loop, many at once."""

    async def main() -> Any:
        return await asyncio.gather(*(engine.aexecute("tried", {}, user_id="alice") for _ in range(20)))

    assert run(main) == [{"all": [1, 2]}] * 20


def test_a_run_id_lets_a_second_call_go_on(engine: WorkflowEngine, bench: Any, run: Run) -> None:
    """Until it is forgotten."""
    run_id = uuid4()
    bench.services.refuses("s.b", "away")
    with pytest.raises(WorkflowError, match="'b' failed: away"):
        engine.execute("tried", {}, user_id="alice", run_id=run_id)
    bench.services.says("s.b", 2)
    assert engine.execute("tried", {}, user_id="alice", run_id=run_id) == {"all": [1, 2]}
    assert bench.services.asked() == ["s.a", "s.b", "s.b"]
    run(lambda: engine.forget("tried", run_id))
    engine.execute("tried", {}, user_id="alice", run_id=run_id)
    assert bench.services.asked()[3:] == ["s.a", "s.b"]


@pytest.mark.parametrize("how", ["execute", "aexecute"])
def test_a_run_that_takes_too_long_is_cancelled_and_closed(
    engine: WorkflowEngine, bench: Any, run: Run, how: str
) -> None:
    """TimeoutError, and nothing is open."""

    async def hangs(_params: Mapping[str, Any]) -> ExternalServiceResponse:
        await asyncio.Event().wait()
        raise AssertionError

    bench.services.answers["s.a"] = hangs
    calls: dict[str, Callable[[], Any]] = {
        "execute": lambda: engine.execute("tried", {}, user_id="alice", timeout=0.05),
        "aexecute": lambda: run(lambda: engine.aexecute("tried", {}, user_id="alice", timeout=0.05)),
    }
    with pytest.raises(TimeoutError):
        calls[how]()
    assert bench.services.open_now == 0


def test_what_cannot_be_run_is_refused(engine: WorkflowEngine) -> None:
    """An unknown name, input that does not fit."""
    with pytest.raises(InvalidInputError, match="there is no workflow 'tred'; known: tried"):
        engine.execute("tred", {}, user_id="alice")
    with pytest.raises(InvalidInputError, match=r"input\.x is not known"):
        engine.execute("tried", {"x": 1}, user_id="alice")
