"""The graphs that `isolation.py` measures: four nodes in a row, of about 1 and about 100 ms."""

import asyncio
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

NAP = 0.025  # seconds in each node of the slow graph


class State(TypedDict):
    """What the nodes hand on."""

    n: int


async def step(state: State) -> State:
    """Do nothing much."""
    return {"n": state["n"] + 1}


async def nap(state: State) -> State:
    """Wait as for somebody else's answer."""
    await asyncio.sleep(NAP)
    return {"n": state["n"] + 1}


def four(node: Any) -> Any:
    """Compile a chain of four."""
    builder = StateGraph(State)
    previous = START
    for number in range(4):
        builder.add_node(f"node{number}", node)
        builder.add_edge(previous, f"node{number}")
        previous = f"node{number}"
    builder.add_edge(previous, END)
    return builder.compile()


FAST, SLOW = four(step), four(nap)


async def fast(n: int) -> int:
    """Run the graph of about 1 ms."""
    return int((await FAST.ainvoke({"n": n}))["n"])


async def slow(n: int) -> int:
    """Run the graph of about 100 ms."""
    return int((await SLOW.ainvoke({"n": n}))["n"])


def fast_in_new_loop(n: int) -> int:
    """Run the fast graph as a pool's worker does that has no loop."""
    return asyncio.run(fast(n))


def slow_in_new_loop(n: int) -> int:
    """Run the slow graph so."""
    return asyncio.run(slow(n))


async def burn(n: int) -> int:
    """Run the fast graph a few times: work for a processor."""
    for number in range(n):
        await fast(number)
    return n
