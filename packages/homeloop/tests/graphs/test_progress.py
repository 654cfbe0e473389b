"""E2: steps report, each awaited and persisted before the next one begins; percent never goes backwards."""

import asyncio
import functools
import operator
from typing import Annotated, Any, TypedDict

import pytest
from graph_runs import go, thread
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from homeloop._events import CallbackFailed
from homeloop.adapters.langgraph import LoopLocalGraph, ProgressTrackingWorkflow

BEGIN = {"done": []}


class State(TypedDict):
    done: Annotated[list[str], operator.add]


def graph(**nodes: Any) -> Any:
    """A graph: nodes in a row; those in a list run side by side."""
    builder = StateGraph(State)
    before = [START]
    for name, node in nodes.items():
        names = name.split("_and_")
        for each in names:
            builder.add_node(each, node)
            for earlier in before:
                builder.add_edge(earlier, each)
        before = names
    for last in before:
        builder.add_edge(last, END)
    return builder


def test_each_step_is_persisted_before_the_next_begins() -> None:
    """What is told is in order, on the caller's loop, and a step's persisting has ended when the next begins."""
    happened: list[str] = []

    async def persist(step: str, percent: float, description: str) -> None:
        await asyncio.sleep(0.01)
        happened.append(f"{step} {percent} {description}")

    async def step(state: State) -> Any:
        happened.append("step")
        return {"done": ["x"]}

    steps = {"read": (30, "was read"), "judge": (90, "was judged"), "absent": (99, "")}
    workflow = ProgressTrackingWorkflow(graph(read=step, find=step, judge=step).compile(), persist, steps=steps)
    assert go(workflow.ainvoke, BEGIN) == {"done": ["x", "x", "x"]}
    assert happened == ["step", "read 30 was read", "step", "step", "judge 90 was judged"]
    assert workflow.percent == 90


def test_percent_never_goes_backwards() -> None:
    """Lower figures are told as the highest before, also from nodes side by side and threads, and at most 100."""
    told: list[float] = []

    async def persist(step: str, percent: float, description: str) -> None:
        told.append(percent)

    async def step(state: State) -> Any:
        for percent in (40, 10, 60):
            await workflow.report("within", percent)
        return {"done": []}

    async def there() -> None:
        await workflow.report("another loop", 5)

    def sync_step(state: State) -> Any:
        asyncio.run(there())  # off the loop's thread, as LangGraph runs it
        return {"done": []}

    made = graph(read_and_look_and_find=step, judge=sync_step).compile()
    steps = {"read": (20, ""), "look": (50, ""), "find": (30, ""), "judge": (200, "")}
    workflow = ProgressTrackingWorkflow(made, persist, steps=steps, percent=15)
    go(workflow.ainvoke, BEGIN)
    assert told == sorted(told)
    assert (len(told), told[0], told[-1]) == (9 + 3 + 2, 40, 100)
    with pytest.raises(RuntimeError, match="while the workflow is not running"):
        go(workflow.report, "late", 1)


@pytest.mark.parametrize("on_error", ["report", "raise"])
def test_what_persist_raises(on_error: Any, heard: Any) -> None:
    """It is reported and the workflow goes on, or, if asked to, stops after its step."""
    steps = {"read": (50, ""), "judge": (100, "")}
    ran: list[str] = []

    async def persist(step: str, percent: float, description: str) -> None:
        raise ConnectionError(step)

    async def step(state: State) -> Any:
        ran.append("step")
        return {"done": ["x"]}

    made = graph(read=step, judge=step).compile()
    workflow = ProgressTrackingWorkflow(made, persist, steps=steps, on_error=on_error)
    if on_error == "report":
        assert go(workflow.ainvoke, BEGIN) == {"done": ["x", "x"]}
    else:
        with pytest.raises(ConnectionError, match="read"):
            go(workflow.ainvoke, BEGIN)
        assert ran == ["step"]
    assert len(heard(CallbackFailed)) == len(ran)


def test_the_result_is_that_of_ainvoke() -> None:
    """Private channels are left out of the result, and options of ainvoke may be given but for two."""

    class Result(TypedDict):
        done: Annotated[list[str], operator.add]

    class Whole(Result):
        notes: str

    async def step(state: Whole) -> Any:
        return {"done": ["x"], "notes": "private"}

    async def keep_quiet(state: Whole) -> Any:
        return {"notes": "private"}

    told: list[str] = []

    async def persist(step: str, percent: float, description: str) -> None:
        told.append(step)

    builder = StateGraph(Whole, output_schema=Result)
    builder.add_node("read", step)
    builder.add_node("note", keep_quiet)
    builder.add_edge(START, "read")
    builder.add_edge("read", "note")
    builder.add_edge("note", END)
    steps = {"read": (50, ""), "note": (60, "")}
    for made in (builder.compile(), LoopLocalGraph(builder)):
        workflow = ProgressTrackingWorkflow(made, persist, steps=steps)
        run = functools.partial(workflow.ainvoke, BEGIN, None)
        assert go(functools.partial(run, print_mode=())) == go(made.ainvoke, BEGIN) == {"done": ["x"]}
        assert go(functools.partial(run, output_keys=["notes"])) == {"notes": "private"}
        assert go(functools.partial(run, subgraphs=True)) == {"done": ["x"]}
        for option in ({"stream_mode": "values"}, {"version": "v2"}):
            with pytest.raises(TypeError, match=r"is the workflow's own"):
                go(functools.partial(run, **option))
    assert told == ["read", "note"] * 6


@pytest.mark.parametrize("told", [50, (50,), ("was read", 50), (50, "was read", 1)])
def test_steps_are_checked(told: Any) -> None:
    """What is no percentage and text is refused where it is written, not in the middle of a run."""
    with pytest.raises(TypeError, match="step 'read' needs"):
        ProgressTrackingWorkflow(graph().compile, asyncio.sleep, steps={"read": told})  # type: ignore[arg-type]


def test_interrupts_and_resuming() -> None:
    """An interrupt is in the result, as LangGraph has it; the workflow goes on from its percentage."""
    told: list[tuple[str, float]] = []

    async def persist(step: str, percent: float, description: str) -> None:
        told.append((step, percent))

    async def step(state: State) -> Any:
        return {"done": ["x"]}

    async def ask(state: State) -> Any:
        return {"done": [interrupt("really?")]}

    graphs = LoopLocalGraph(graph(read=step, ask=ask), checkpointer=InMemorySaver())
    workflow = ProgressTrackingWorkflow(graphs, persist, steps={"read": (60, ""), "ask": (50, "")})
    config = thread()
    stopped = go(workflow.ainvoke, BEGIN, config)
    assert [each.value for each in stopped["__interrupt__"]] == ["really?"]
    assert go(workflow.ainvoke, Command(resume="yes"), config) == {"done": ["x", "yes"]}
    assert told == [("read", 60), ("ask", 60)]
