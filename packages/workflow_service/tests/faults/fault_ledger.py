"""A workflow of five steps that writes down whatever it does, for processes that are killed in the middle.

A plug-in: processes with this folder and its ``plugin`` on their path find it by the entry point in the latter.
Apart, because tests import this module too, and are not to have the plug-in in all their services.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from homeloop import LoopLocal
from workflow_service.gateways.postgres.connection import Connection, open_connection
from workflow_service.gateways.postgres.pool import Pool, lend, open_pool
from workflow_service.ports import RunContext
from workflow_service.workflows.engine.kept import Checkpointer
from workflow_service.workflows.plugins import WorkflowTools

STEPS = 5
PAUSE = 0.05  # seconds a step takes, so that a kill meets many runs in the middle of one

TABLES = """
CREATE TABLE IF NOT EXISTS public.executions (run_id uuid, step text, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS public.effects (run_id uuid, step text, PRIMARY KEY (run_id, step));
GRANT ALL ON public.executions, public.effects TO PUBLIC;
"""
EXECUTE = """
WITH execution AS (INSERT INTO public.executions (run_id, step) VALUES ($1, $2))
INSERT INTO public.effects (run_id, step) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""  # at least once, and idempotent: what a step is to be


class State(TypedDict):
    """What is kept between the steps."""

    done: int


class Ledger:
    """Fits the Workflow port."""

    name = "ledger"
    description = "Writes five lines."
    input_schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self, pools: LoopLocal[Pool], checkpointer: Checkpointer) -> None:
        self._pools = pools
        self._checkpointer = checkpointer
        graph = StateGraph(State)
        names = [f"step {number}" for number in range(1, STEPS + 1)]
        for number, name in enumerate(names, start=1):
            graph.add_node(name, self._step(name, number))
        for before, after in zip([START, *names], [*names, END], strict=True):
            graph.add_edge(before, after)
        self._graph = graph

    def check(self, _input_data: Mapping[str, Any]) -> None:
        """Take any input."""

    async def run(self, context: RunContext) -> Mapping[str, Any]:
        """Do the steps that are not done."""
        config: RunnableConfig = {"configurable": {"thread_id": str(context.run_id), "context": context}}
        async with self._checkpointer(context.run_id, context.attempt) as saver:
            graph = self._graph.compile(checkpointer=saver)
            kept = await graph.aget_state(config)
            if kept.values.get("done") == STEPS:
                return dict(kept.values)
            start = {"done": 0} if kept.created_at is None else None
            return dict(await graph.ainvoke(start, config, durability="sync"))

    async def forget(self, run_id: UUID) -> None:
        """Remove its checkpoints."""
        async with self._checkpointer(run_id, None) as saver:
            await saver.adelete_thread(str(run_id))

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Connection]:
        async with self._pools() as pool, lend(pool) as connection:
            yield connection

    def _step(self, name: str, number: int) -> Callable[..., Any]:
        async def step(_state: State, config: RunnableConfig) -> State:
            context: RunContext = config.get("configurable", {})["context"]
            await asyncio.sleep(PAUSE)
            async with open_connection(self._connect) as connection:
                await connection.execute(EXECUTE, context.run_id, name)
            await context.report(name, round(100 * number / STEPS), "")
            return {"done": number}

        return step


def make(tools: WorkflowTools) -> Ledger:
    """Make the workflow; what it writes goes to the service's own database."""
    url = os.environ["DATABASE_URL"]
    return Ledger(LoopLocal(lambda: open_pool(url, 2, 10.0), name="ledger"), tools.checkpointer)
