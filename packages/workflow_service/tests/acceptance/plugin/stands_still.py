"""A workflow that stands still in its second step until a file is there, and fails in its last.

A plug-in: processes with this folder on their path find it.
"""

import asyncio
import os
from pathlib import Path
from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from workflow_service.ports import Workflow, WorkflowError
from workflow_service.workflows.graphs import Graph, GraphWorkflow, report
from workflow_service.workflows.plugins import WorkflowTools

FOLDER = "STANDS_STILL_IN"
"""The variable that names a folder: a file ``entered`` is made there in the second step, ``go`` is waited for."""


class State(TypedDict, total=False):
    """What is kept."""

    done: list[str]


async def _first(state: State, config: RunnableConfig) -> State:
    await report(config, "first", 25, "done")
    return {"done": [*state.get("done", []), "first"]}


async def _second(state: State, config: RunnableConfig) -> State:
    folder = Path(os.environ[FOLDER])
    (folder / "entered").touch()
    while not (folder / "go").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    await report(config, "second", 50, "done")
    return {"done": [*state["done"], "second"]}


async def _third(state: State, config: RunnableConfig) -> State:
    await report(config, "third", 75, "done")
    return {"done": [*state["done"], "third"]}


async def _last(_state: State) -> State:
    raise WorkflowError("this is where it ends")


def stands_still(tools: WorkflowTools) -> Workflow:
    """Make the workflow."""
    graph: Graph = StateGraph(State)
    steps = {"first": _first, "second": _second, "third": _third, "last": _last}
    for name, step in steps.items():
        graph.add_node(name, step)
    for before, after in zip([START, *steps], [*steps, END], strict=True):
        graph.add_edge(before, after)
    return GraphWorkflow("stands_still", "Stands still.", {"type": "object"}, graph, tools.checkpointer)
