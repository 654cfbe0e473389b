"""A saver of LangGraph over SQLite, kept by a module, under load in each run.

class: PRIMITIVE_REBIND
needs:
"""

import asyncio
import operator
import tempfile
from typing import Annotated, TypedDict

import aiosqlite
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    items: Annotated[list, operator.add]


async def node(state):
    return {"items": [1]}


builder = StateGraph(State)
builder.add_node("node", node)
builder.add_edge(START, "node")
kept = []


async def main():
    if not kept:
        connection = await aiosqlite.connect(tempfile.mkdtemp() + "/saver.db")
        kept.append(builder.compile(checkpointer=AsyncSqliteSaver(connection)))
    await asyncio.gather(
        *(kept[0].ainvoke({"items": []}, {"configurable": {"thread_id": str(n)}}) for n in range(5))
    )


try:
    asyncio.run(main())
    asyncio.run(main())
finally:
    asyncio.run(kept[0].checkpointer.conn.close())
