"""
The failing application of the source documents, whole: Celery, a LangGraph graph, an asyncpg pool.

One body, two ways to run it. The naive way is the one the documents started from: a pool kept in
the module, ``asyncio.run`` in each task. The other one is homeloop's.
"""

import asyncio
import os
from typing import TypedDict

import asyncpg
from celery import Celery
from langgraph.graph import END, START, StateGraph

from homeloop import LoopLocal
from homeloop.adapters.celery import install

POOL_SIZE = 3

app = Celery("seed", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], worker_prefetch_multiplier=1)
install(app)


def create_pool() -> "asyncpg.Pool[asyncpg.Record]":
    return asyncpg.create_pool(os.environ["SEED_DSN"], min_size=0, max_size=POOL_SIZE)


class Analysis(TypedDict, total=False):
    document_id: int
    backends: list[int]


def build(pool: "asyncpg.Pool[asyncpg.Record]"):  # type: ignore[no-untyped-def]
    """A graph whose nodes query the database, one after the other and two at once."""

    async def read(state: Analysis) -> Analysis:
        async with pool.acquire() as connection:
            return {"backends": [await connection.fetchval("select pg_backend_pid()")]}

    async def analyse(state: Analysis) -> Analysis:
        found = await asyncio.gather(*(pool.fetchval("select pg_backend_pid() from pg_sleep(0.01)") for _ in "ab"))
        return {"backends": [*state["backends"], *found]}

    graph = StateGraph(Analysis)
    graph.add_node("read", read)
    graph.add_node("analyse", analyse)
    graph.add_edge(START, "read")
    graph.add_edge("read", "analyse")
    graph.add_edge("analyse", END)
    return graph.compile()


naive_pool: "asyncpg.Pool[asyncpg.Record] | None" = None


@app.task
def naive(document_id: int) -> list[int]:
    async def process() -> list[int]:
        global naive_pool
        if naive_pool is None:
            naive_pool = await create_pool()
        return (await build(naive_pool).ainvoke({"document_id": document_id}))["backends"]

    return asyncio.run(process())


pools = LoopLocal(create_pool, name="seed pool")


@app.task
async def at_home(document_id: int) -> list[int]:
    async with pools() as pool:
        return (await build(pool).ainvoke({"document_id": document_id}))["backends"]
