"""A workflow of one's own: a LangGraph graph that reads a letter, asks a person, and goes on with the answer."""

from itertools import pairwise
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from workflow_service.ports import WorkflowError
from workflow_service.workflows.graphs import GraphWorkflow, report, user_of
from workflow_service.workflows.plugins import WorkflowTools


class Amount(BaseModel):
    """What a letter asks for."""

    currency: str
    value: float


class State(BaseModel):
    """What the nodes work on; kept after each of them."""

    letter: str
    amounts: list[Amount] = []
    outcome: str = ""
    decided_by: str = ""


class Outcome(BaseModel):
    """What a run returns."""

    amounts: list[Amount]
    outcome: str
    decided_by: str


def find(state: State) -> dict[str, Any]:
    """Find amounts. A sync node works on a thread, so it may block; it tells of its work by the stream writer."""
    tell = get_stream_writer()
    words = state.letter.replace(",", "").split()
    pairs = [pair for pair in pairwise(words) if pair[0] in ("EUR", "USD")]
    if not pairs:
        raise WorkflowError("the letter names no amount in EUR or USD")
    tell({"step": "find", "percent": 30, "description": f"found {len(pairs)} amounts"})
    return {"amounts": [Amount(currency=currency, value=float(value)) for currency, value in pairs]}


async def ask(state: State, config: RunnableConfig) -> Command[Literal["pay", "refuse"]]:
    """Ask a person. The node begins anew when it is answered, so nothing that must not be done twice is before."""
    answer = interrupt(
        {
            "question": "Shall this be paid?",
            "schema": {"type": "string", "enum": ["pay", "refuse"]},
            "amounts": [amount.model_dump() for amount in state.amounts],
        }
    )
    await report(config, "ask", 70, f"answered: {answer}")
    return Command(update={"decided_by": user_of(config)}, goto="pay" if answer == "pay" else "refuse")


async def pay(state: State) -> dict[str, Any]:
    """Do as was said. This node says nothing of its work: the run tells that it has ended."""
    return {"outcome": f"paid {len(state.amounts)} amounts"}


async def refuse(_state: State) -> dict[str, Any]:
    """Leave it."""
    return {"outcome": "refused"}


def approval(tools: WorkflowTools) -> GraphWorkflow:
    """Make the workflow; what the entry point names."""
    deciding = StateGraph(State)  # a graph inside: its nodes are told as decide/ask, decide/pay, …
    for node in (ask, pay, refuse):
        deciding.add_node(node.__name__, node)
    deciding.add_edge(START, "ask")

    graph = StateGraph(State, output_schema=Outcome)
    graph.add_node("find", find)
    graph.add_node("decide", deciding.compile())
    graph.add_edge(START, "find")
    graph.add_edge("find", "decide")
    return GraphWorkflow(
        name="approval",
        description="Finds the amounts in a letter, and asks whether they shall be paid.",
        input_schema={
            "type": "object",
            "properties": {"letter": {"type": "string", "title": "Letter", "format": "multiline", "minLength": 1}},
            "required": ["letter"],
            "additionalProperties": False,
        },
        graph=graph,
        checkpointer=tools.checkpointer,
    )
