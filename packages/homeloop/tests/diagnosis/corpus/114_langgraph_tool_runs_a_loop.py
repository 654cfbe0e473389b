"""A sync node of a graph, invoked from a coroutine with invoke(), starts a loop.

class: NESTED_RUN
needs:
"""

import asyncio
from typing import TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict):
    n: int


async def load():
    return {"n": 1}


def node(state):
    coroutine = load()
    try:
        return asyncio.run(coroutine)
    finally:
        coroutine.close()


builder = StateGraph(State)
builder.add_node("node", node)
builder.add_edge(START, "node")
graph = builder.compile()


async def main():
    return graph.invoke({"n": 0})


asyncio.run(main())
