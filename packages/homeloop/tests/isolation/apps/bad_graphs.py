"""LangGraph graphs of four nodes, some of which leak tasks, block, fork or crash on purpose."""

import asyncio
import os
import time
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

kept: list["asyncio.Task[Any]"] = []


class State(TypedDict, total=False):
    """What the nodes hand on."""

    n: int
    did: list[str]
    go_on: str


async def step(state: State) -> State:
    await asyncio.sleep(0)
    return {"n": state["n"] + 1}


async def _late() -> None:
    await asyncio.sleep(600)


async def leak(state: State) -> State:
    kept.append(asyncio.create_task(_late(), name="spilled"))
    return {"n": state["n"] + 1}


async def block(state: State) -> State:
    """Block the loop for a while, or until a file is there."""
    deadline = time.monotonic() + (50 if state.get("go_on") else 0.4)
    while time.monotonic() < deadline and not (state.get("go_on") and os.path.exists(state["go_on"])):
        time.sleep(0.005)
    return {"n": state["n"] + 1}


async def fork(state: State) -> State:
    child = os.fork()
    if child == 0:
        # The child of a fork in a coroutine: it owns nothing here, and leaves.
        os._exit(11)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"n": state["n"] + 1, "did": [f"child left with {code}"]}


async def fork_and_go_on(state: State) -> State:
    """Fork; the child goes on with the graph, as one does that a library has forked."""
    child = os.fork()
    if child == 0:
        return {"n": 1000}
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"n": state["n"] + 1, "did": [f"child left with {code}"]}


async def fail(state: State) -> State:
    raise ValueError(f"node failed at {state['n']}")


async def crash(state: State) -> State:
    os._exit(42)


def graph(*nodes: Any) -> Any:
    """Compile a chain of nodes, with `step` around them up to four."""
    builder = StateGraph(State)
    chain = [step, *nodes, *[step] * (3 - len(nodes))]
    previous = START
    for number, node in enumerate(chain):
        builder.add_node(f"node{number}", node)
        builder.add_edge(previous, f"node{number}")
        previous = f"node{number}"
    builder.add_edge(previous, END)
    return builder.compile()


GRAPHS = {
    "good": graph(),
    "leaks": graph(leak),
    "blocks": graph(block),
    "forks": graph(fork),
    "forks and goes on": graph(fork_and_go_on),
    "fails": graph(fail),
    "crashes": graph(crash),
    "leaks and blocks and forks": graph(leak, block, fork),
}


async def run_graph(name: str, n: int = 0, go_on: str = "") -> State:
    """Run a graph of this module to its end."""
    result: State = await GRAPHS[name].ainvoke({"n": n, "go_on": go_on})
    return result
