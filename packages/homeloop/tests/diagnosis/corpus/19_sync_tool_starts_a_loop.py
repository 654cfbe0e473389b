"""A node that must be sync starts a loop, below an endpoint that is async.

class: NESTED_RUN
needs:
"""

import asyncio
from typing import TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict):
    text: str


async def ask(text):
    return text.upper()


def node(state):
    return {"text": asyncio.run(ask(state["text"]))}


graph = StateGraph(State).add_node(node).add_edge(START, "node").compile()


async def endpoint():
    return graph.invoke({"text": "hello"})


asyncio.run(endpoint())
