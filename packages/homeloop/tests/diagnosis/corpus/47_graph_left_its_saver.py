"""A graph is returned out of the block that keeps its saver open.

class: USE_AFTER_CONTEXT_EXIT
needs:
"""

import asyncio
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    n: int


async def node(state):
    return {"n": state["n"] + 1}


async def build():
    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
        return builder.compile(checkpointer=saver)


async def main():
    graph = await build()
    print(await graph.ainvoke({"n": 1}, {"configurable": {"thread_id": "1"}}))


asyncio.run(main())
