"""A LangGraph graph of one's own behind the port: input, steps, second lives."""

from collections.abc import Callable, Coroutine
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from workflow_service.ports import Drain, DrainedError, InvalidInputError, RunContext
from workflow_service.workflows.graphs import GraphWorkflow, report, user_of

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer", "default": 2}},
    "required": ["text"],
    "additionalProperties": False,
}


class Input(TypedDict):
    text: str
    times: int


class State(Input):
    words: list[str]
    said: str


class Output(TypedDict):
    said: str


class Doings:
    """Counts how often each node has run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def graph(self) -> Any:
        """Return a graph of two nodes."""

        async def split(state: State, config: RunnableConfig) -> dict[str, Any]:
            self.ran.append("split")
            words = state["text"].split() * state["times"]
            await report(config, "split", 50, f"{len(words)} words")
            return {"words": words}

        async def join(state: State, config: RunnableConfig) -> dict[str, Any]:
            self.ran.append("join")
            await report(config, "join", 100, "joined")
            return {"said": " ".join([*state["words"], "for", user_of(config)])}

        graph = StateGraph(State, input_schema=Input, output_schema=Output)
        graph.add_node("split", split)
        graph.add_node("join", join)
        graph.add_edge(START, "split")
        graph.add_edge("split", "join")
        graph.add_edge("join", END)
        return graph


def made(doings: Doings, checkpointer: Any) -> GraphWorkflow:
    return GraphWorkflow("echo", "Says a text again.", SCHEMA, doings.graph(), checkpointer)


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("die_at", [None, "split", "join"])
def test_a_graph_runs_and_goes_on_where_its_worker_died(
    in_postgres: Any, run: Run, told: Any, worker_died: type[BaseException], die_at: str | None
) -> None:
    """Input with defaults in, output alone out, steps told; a finished run gives its output again."""
    doings = Doings()

    async def main() -> None:
        run_id, first, second = uuid4(), told(die_at), told()
        context = RunContext(run_id, "alice", {"text": "so so"}, first)
        if die_at is not None:
            with pytest.raises(worker_died):
                await made(doings, in_postgres).run(context)
        expected = {"said": "so so so so for alice"}
        workflow = made(doings, in_postgres)
        assert await workflow.run(RunContext(run_id, "alice", {"text": "so so"}, second)) == expected
        ran = list(doings.ran)
        assert (
            ran
            == {None: ["split", "join"], "split": ["split", "split", "join"], "join": ["split", "join", "join"]}[
                die_at
            ]
        )
        assert first.names + second.names == ["split", "join"]
        assert await workflow.run(RunContext(run_id, "alice", {"text": "so so"}, told())) == expected
        assert doings.ran == ran
        await workflow.forget(run_id)
        await workflow.run(RunContext(run_id, "alice", {"text": "so so"}, told()))
        assert len(doings.ran) == len(ran) + 2

    run(main)


def test_a_graph_that_is_drained_ends_between_nodes_and_goes_on(in_memory: Any, run: Run, told: Any) -> None:
    """The node under way ends and is kept."""
    doings, drain, first, second = Doings(), Drain(), told(), told()

    async def main() -> None:
        run_id = uuid4()

        async def asked_to_end(step: str, percent: int, description: str) -> None:
            await first(step, percent, description)
            drain.request()

        workflow = made(doings, in_memory)
        with pytest.raises(DrainedError):
            await workflow.run(RunContext(run_id, "alice", {"text": "so"}, asked_to_end, drain))
        assert doings.ran == ["split"]
        answer = await workflow.run(RunContext(run_id, "alice", {"text": "so"}, second))
        assert answer == {"said": "so so for alice"}
        assert doings.ran == ["split", "join"]

    run(main)


def test_input_that_does_not_fit_is_refused(in_memory: Any) -> None:
    """By the schema that the page shows."""
    with pytest.raises(
        InvalidInputError, match=r"input\.text is missing; input\.txt is not known; did you mean 'text'"
    ):
        made(Doings(), in_memory).check({"txt": "x"})


def test_a_schema_that_is_none_is_refused(in_memory: Any) -> None:
    """When the workflow is made, not when somebody runs it."""
    with pytest.raises(ValueError, match="the input must be of type object"):
        GraphWorkflow("x", "X.", {"type": "string"}, Doings().graph(), in_memory)
    with pytest.raises(ValueError, match="this is no JSON Schema"):
        GraphWorkflow("x", "X.", {"type": "objct"}, Doings().graph(), in_memory)
