"""Graphs that are run in every tier, here and in other processes."""

import asyncio
import operator
import os
import signal
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph

import homeloop
from homeloop import LoopLocal
from homeloop.adapters.langgraph import LoopLocalGraph
from homeloop.adapters.langgraph.postgres import loop_local_pool, loop_local_saver, loop_local_store

NODES = ("read", "find", "judge", "write")


class State(TypedDict):
    n: int
    places: Annotated[list[str], operator.add]


def builder(**nodes: Any) -> Any:
    """A graph of nodes in a row."""
    made = StateGraph(State)
    before = START
    for name, node in nodes.items():
        made.add_node(name, node)
        made.add_edge(before, name)
        before = name
    made.add_edge(before, END)
    return made


async def add(state: State) -> dict[str, Any]:
    """Add one and tell where."""
    await asyncio.sleep(0)
    return {"n": state["n"] + 1, "places": [f"{os.getpid()} {threading.get_ident()} {homeloop.isolation_of()}"]}


async def add_and_report(state: State) -> dict[str, Any]:
    """Add one and report."""
    await homeloop.current_report()(f"step {state['n']}", 25 * (state["n"] + 1), "added")
    return await add(state)


async def remember(state: State) -> dict[str, Any]:
    """Add one and put it into the store."""
    store = get_store()
    await store.aput(("tests",), "n", {"n": state["n"]})
    found = await store.aget(("tests",), "n")
    assert found is not None
    return {"n": found.value["n"] + 1, "places": []}


async def interrupted(state: State) -> dict[str, Any]:
    """Kill this process, the first time; FLAG says whether it is the first."""
    if not note(f"judge {state['n']}"):
        os.kill(os.getpid(), signal.SIGKILL)
    return await add(state)


def note(line: str) -> int:
    """Write a line down; return how often it was there before."""
    notes = Path(os.environ["GRAPH_NOTES"])
    with notes.open("a") as file:
        file.write(line + "\n")
    return notes.read_text().splitlines().count(line) - 1


pools = loop_local_pool(os.environ.get("GRAPH_DSN", ""), max_size=4)
savers = loop_local_saver(pools)
stores = loop_local_store(pools)

adding = LoopLocalGraph(builder(**dict.fromkeys(NODES, add)), checkpointer=savers, name="adding")
plain = LoopLocalGraph(builder(**dict.fromkeys(NODES, add)))
reporting = LoopLocalGraph(builder(**dict.fromkeys(NODES, add_and_report)))
remembering = LoopLocalGraph(builder(remember=remember), checkpointer=savers, store=stores)
dying = LoopLocalGraph(builder(read=add, judge=interrupted), checkpointer=savers)
building = builder(**dict.fromkeys(NODES, add))
compiled = building.compile()


def make_builder() -> Any:
    """Make a builder where it is asked for."""
    return builder(**dict.fromkeys(NODES, add))


async def made_here() -> Any:
    """Make a graph on the loop that asks."""
    await asyncio.sleep(0)
    return builder(**dict.fromkeys(NODES, add)).compile()


counted = LoopLocal(object)


async def identity() -> int:
    """Tell which instance the caller's loop or scope has."""
    return id(await counted.get())


async def numbers(upto: int) -> AsyncGenerator[int, None]:
    """Count."""
    for number in range(upto):
        yield number


async def count_loops(start: int, *, step: int = 1) -> tuple[int, int]:
    """Tell the thread, and the sum of the arguments."""
    await asyncio.sleep(0)
    return threading.get_ident(), start + step


async def set_notes(path: str) -> None:
    """Have the notes of this process written there."""
    os.environ["GRAPH_NOTES"] = path
