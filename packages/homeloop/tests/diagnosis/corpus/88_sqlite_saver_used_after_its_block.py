"""A graph is returned out of the block of its saver over SQLite.

class: USE_AFTER_CONTEXT_EXIT
needs:
"""

import asyncio
import tempfile
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    n: int


builder = StateGraph(State)
builder.add_node("node", lambda state: {"n": 1})
builder.add_edge(START, "node")


async def make():
    async with AsyncSqliteSaver.from_conn_string(tempfile.mkdtemp() + "/saver.db") as saver:
        return builder.compile(checkpointer=saver)


async def main():
    graph = await make()
    await graph.ainvoke({"n": 0}, {"configurable": {"thread_id": "1"}})


asyncio.run(main())
