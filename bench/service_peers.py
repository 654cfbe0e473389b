"""The work of bench/service.py: a graph of two steps, and how it becomes a workflow of the service."""

import asyncio
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

STEP = 0.01  # seconds: a node that asks somebody and waits for the answer


class State(TypedDict, total=False):
    """A text, and what is found in it."""

    text: str
    words: int
    answer: str


async def count(state: State) -> State:
    """Count the words."""
    await asyncio.sleep(STEP)
    return {"words": len(state["text"].split())}


async def say(state: State) -> State:
    """Say how many there are."""
    await asyncio.sleep(STEP)
    return {"answer": f"{state['words']} words"}


def two_steps() -> Any:  # Any: StateGraph with its four parameters
    """Return the graph, not compiled."""
    graph = StateGraph(State)
    graph.add_node("count", count)
    graph.add_node("say", say)
    graph.add_edge(START, "count")
    graph.add_edge("count", "say")
    graph.add_edge("say", END)
    return graph


def for_workflow_service(tools: Any) -> Any:
    """The entry point of the plug-in."""
    from workflow_service.workflows.graphs import GraphWorkflow

    schema = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
    return GraphWorkflow("two_steps", "Counts words.", schema, two_steps(), tools.checkpointer)
