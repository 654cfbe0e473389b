"""What LangGraph graphs can do beside steps in a row: each works behind the port as LangGraph's own pages say."""

import asyncio
import operator
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID, uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

import homeloop
from homeloop.health import HealthMonitor, HealthThresholds
from workflow_service.ports import RunContext, WaitingError, WorkflowError
from workflow_service.workflows.graphs import GraphWorkflow, report
from workflow_service.workflows.workflow_engine import WorkflowEngine

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class State(TypedDict, total=False):
    text: str
    said: Annotated[list[Any], operator.add]


@dataclass
class Life:
    """One run, of which any number of workers work."""

    workflow: GraphWorkflow
    told: Any
    run_id: UUID

    async def live(self, answers: dict[str, Any] | None = None, steps: Any = None) -> Any:
        """Work on it as the next worker does, with all answers that were ever given."""
        context = RunContext(self.run_id, "alice", {"text": "x"}, steps or self.told, answers=answers or {})
        return await self.workflow.run(context)

    async def question(self, answers: dict[str, Any] | None = None) -> Any:
        """Work on it until it waits, and return its one question."""
        with pytest.raises(WaitingError) as waiting:
            await self.live(answers)
        (question,) = waiting.value.questions
        return question


@pytest.fixture
def life(in_postgres: Any, told: Any) -> Callable[..., Life]:
    """Makes a workflow of a graph, and a run of it whose checkpoints are in PostgreSQL."""
    return lambda graph, **more: Life(
        GraphWorkflow("tried", "Tried.", SCHEMA, graph, in_postgres, **more), told(), uuid4()
    )


def graph_of(*nodes: Callable[..., Any], state: Any = State) -> Any:
    """Return a graph of nodes in a row, each called as its function."""
    graph: Any = StateGraph(state)
    for node in nodes:
        graph.add_node(node.__name__, node)
    for before, after in zip((START, *(node.__name__ for node in nodes)), nodes, strict=False):
        graph.add_edge(before, after.__name__)
    return graph


pytestmark = pytest.mark.needs("postgres")


def test_a_node_asks_a_person_and_the_next_worker_goes_on_with_the_answer(life: Any, run: Run) -> None:
    """The nodes before it are not done again; the question is JSON; without an answer it is asked again."""
    done: list[str] = []

    def before(_state: State) -> State:
        done.append("before")
        return {}

    def ask(_state: State) -> State:
        answer = interrupt({"question": "Sign it?", "after": UUID(int=1)})
        return {"said": [answer]}

    async def main() -> None:
        tried = life(graph_of(before, ask))
        question = await tried.question()
        assert question.value == {"question": "Sign it?", "after": str(UUID(int=1))}
        assert await tried.question() == question
        assert await tried.question({"some other": True}) == question
        assert (await tried.live({question.id: {"yes": True}}))["said"] == [{"yes": True}]
        assert done == ["before"]
        assert tried.told.names == ["before", "ask"]

    run(main)


def test_a_graph_is_answered_from_sync_code(life: Any) -> None:
    """`WorkflowEngine.execute` with the same run id and the answers goes on."""

    def ask(_state: State) -> State:
        return {"said": [interrupt("Well?")]}

    tried = life(graph_of(ask))
    engine = WorkflowEngine({"tried": tried.workflow}, homeloop.run)
    call: Any = partial(engine.execute, "tried", {"text": "x"}, user_id="alice", run_id=tried.run_id, timeout=60)
    with pytest.raises(WaitingError) as waiting:
        call()
    (question,) = waiting.value.questions
    assert call(answers={question.id: "good"})["said"] == ["good"]


def test_each_of_two_questions_of_a_node_gets_its_own_answer(life: Any, run: Run) -> None:
    """Also when a worker dies between them and the next is given the first answer once more."""

    def ask(_state: State) -> State:
        return {"said": [interrupt("First?"), interrupt("Second?")]}

    async def main() -> None:
        tried = life(graph_of(ask))
        first = await tried.question()
        answers = {first.id: 1}
        second = await tried.question(answers)
        assert (first.value, second.value) == ("First?", "Second?")
        assert await tried.question(answers) == second
        assert (await tried.live({**answers, second.id: 2}))["said"] == [1, 2]
        assert (await tried.live({**answers, second.id: 2}))["said"] == [1, 2]

    run(main)


def test_a_node_that_is_come_to_again_asks_anew(life: Any, run: Run) -> None:
    """An answer is for the question that it was given to, not for the next that reads the same."""

    def ask(state: State) -> Command[Literal["ask", "__end__"]]:
        answer = interrupt("More?")
        return Command(update={"said": [answer]}, goto="ask" if answer else END)

    async def main() -> None:
        graph: Any = StateGraph(State)
        graph.add_node("ask", ask)
        graph.add_edge(START, "ask")
        tried, answers = life(graph), {}
        for answer in (True, True):
            answers[(await tried.question(answers)).id] = answer
        answers[(await tried.question(answers)).id] = False
        assert (await tried.live(answers))["said"] == [True, True, False]

    run(main)


def test_questions_of_nodes_side_by_side_may_be_answered_one_after_the_other(life: Any, run: Run) -> None:
    """All are told; what is not answered is asked again, what is answered is not."""

    def ask(state: dict[str, str]) -> State:
        return {"said": [f"{state['who']}: {interrupt(state['who'])}"]}

    async def main() -> None:
        graph: Any = StateGraph(State)
        graph.add_node("ask", ask)
        graph.add_conditional_edges(START, lambda _state: [Send("ask", {"who": who}) for who in "ab"], ["ask"])
        tried = life(graph)
        with pytest.raises(WaitingError) as waiting:
            await tried.live()
        a, b = sorted(waiting.value.questions, key=lambda question: str(question.value))
        assert (a.value, b.value) == ("a", "b")
        assert await tried.question({b.id: 2}) == a
        assert (await tried.live({b.id: 2, a.id: 1}))["said"] == ["a: 1", "b: 2"]

    run(main)


def test_a_subgraph_is_told_by_its_path_and_may_ask(life: Any, run: Run) -> None:
    """Its nodes are steps of the run, its questions are the run's, and it goes on where it stands."""
    done: list[str] = []

    def look(_state: State) -> State:
        done.append("look")
        return {}

    def ask(_state: State) -> State:
        return {"said": [interrupt("Well?")]}

    async def main() -> None:
        graph: Any = StateGraph(State)
        graph.add_node("inner", graph_of(look, ask).compile())
        graph.add_edge(START, "inner")
        tried = life(graph)
        question = await tried.question()
        assert (await tried.live({question.id: "good"}))["said"] == ["good"]
        assert done == ["look"]
        assert tried.told.names == ["inner/look", "inner/ask", "inner"]

    run(main)


def test_nodes_are_told_as_they_end_unless_they_tell_themselves(life: Any, run: Run) -> None:
    """Three ways: none of its own, `report`, and LangGraph's stream writer, which a sync node has, too."""

    async def silent(_state: State) -> State:
        return {}

    async def reporting(_state: State, config: RunnableConfig) -> State:
        await report(config, "half", 50, "half of it")
        return {}

    def writing(_state: State) -> State:
        write = get_stream_writer()
        write({"step": "most", "percent": 90, "description": "most of it"})
        write({"of": "the graph's own"})
        return {}

    async def main() -> None:
        tried = life(graph_of(silent, reporting, writing))
        await tried.live()
        assert tried.told.told == [
            ("silent", 0, "ended"),
            ("half", 50, "half of it"),
            ("most", 90, "most of it"),
            ("writing", 90, "ended"),
        ]

    run(main)


def test_an_error_in_a_node_is_the_runs_and_the_next_attempt_begins_at_that_node(life: Any, run: Run) -> None:
    """The same object, as the node raised it; what was done before is kept. A retry policy is LangGraph's own."""
    done: list[str] = []
    faults = [ValueError("of the node"), None]

    def first(_state: State) -> State:
        done.append("first")
        return {}

    def second(_state: State) -> State:
        done.append("second")
        if fault := faults.pop(0):
            raise fault
        return {"said": ["at last"]}

    async def main() -> None:
        tried, fault = life(graph_of(first, second)), faults[0]
        with pytest.raises(ValueError, match="of the node") as raised:
            await tried.live()
        assert raised.value is fault
        assert (await tried.live())["said"] == ["at last"]
        assert done == ["first", "second", "second"]
        faults[:] = [ValueError("once"), None]
        graph: Any = StateGraph(State)
        policy = RetryPolicy(initial_interval=0.01, max_attempts=2, retry_on=ValueError)
        graph.add_node("second", second, retry_policy=policy)
        graph.add_edge(START, "second")
        assert (await life(graph).live())["said"] == ["at last"]

    run(main)


def test_a_node_says_where_it_goes_on(life: Any, run: Run) -> None:
    """`Command(goto=…)` takes the place of edges."""

    def choose(_state: State) -> Command[Literal["left", "right"]]:
        return Command(update={"said": ["chosen"]}, goto="right")

    async def main() -> None:
        graph: Any = StateGraph(State)
        for name in ("left", "right"):
            graph.add_node(name, lambda _state, name=name: {"said": [name]})
        graph.add_node("choose", choose)
        graph.add_edge(START, "choose")
        tried = life(graph)
        assert (await tried.live())["said"] == ["chosen", "right"]
        assert tried.told.names == ["choose", "right"]

    run(main)


class Person(BaseModel):
    name: str


class Model(BaseModel):
    text: str
    people: list[Person] = []


def test_a_state_may_be_a_pydantic_model_and_the_result_is_json(life: Any, run: Run, worker_died: Any) -> None:
    """Nodes get models, in the next life, too; what the run returns is JSON."""

    async def find(state: Model, config: RunnableConfig) -> dict[str, Any]:
        await report(config, "find", 50, f"looked in {state.text}")
        return {"people": [Person(name="Ada")]}

    async def greet(state: Model, config: RunnableConfig) -> dict[str, Any]:
        await report(config, "greet", 100, f"greeted {state.people[0].name}")
        return {"text": f"Hello, {state.people[0].name}"}

    async def main(told: Any) -> None:
        tried = life(graph_of(find, greet, state=Model))
        with pytest.raises(worker_died):
            await tried.live(steps=told)
        assert await tried.live() == {"text": "Hello, Ada", "people": [{"name": "Ada"}]}
        assert tried.told.names == ["greet"]

    dying = life(graph_of(find)).told
    dying.die_at = "greet"
    run(lambda: main(dying))


def test_a_result_that_is_no_json_is_refused_in_words(life: Any, run: Run) -> None:
    """Whoever writes the graph reads what it was."""

    def give(_state: State) -> State:
        return {"said": [b"\xff"]}

    with pytest.raises(WorkflowError, match=r"what the graph gives is no JSON: .*utf-8"):
        run(lambda: life(graph_of(give)).live())


def test_a_sync_node_works_on_a_thread_and_keeps_nobody_waiting(life: Any, run: Run) -> None:
    """The loop turns while the node blocks: here it is what ends the blocking."""
    turned, threads = threading.Event(), []

    def blocks(_state: State) -> State:
        threads.append(threading.get_ident())
        return {"said": [turned.wait(30)]}

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, turned.set)
        assert (await life(graph_of(blocks)).live())["said"] == [True]
        assert threads != [threading.get_ident()]

    run(main)


def test_a_node_that_blocks_the_loop_is_named_by_the_health_report(life: Any, run: Run) -> None:
    """With the line of the node that blocks, while it does."""
    monitor = HealthMonitor(thresholds=HealthThresholds(blocked=0.05))
    told: list[str] = []

    async def blocks_the_loop(_state: State) -> State:
        end = time.monotonic() + 30
        while not told and time.monotonic() < end:
            stalls = [loop.stall for loop in monitor.report().loops if loop.stall is not None]
            told.extend(frame for stall in stalls for frame in stall.blocked_at if "blocks_the_loop" in frame)
        return {}

    async def main() -> None:
        monitor.start(interval=60)
        await life(graph_of(blocks_the_loop)).live()

    with monitor:
        run(main)
    assert told
    assert "test_graph_features.py" in told[0]
