"""An app whose workers are watched, by Celery's remote control and by Prometheus."""

import asyncio
import os
from pathlib import Path
from typing import Any, TypedDict

from celery import Celery
from langgraph.graph import StateGraph

import homeloop.adapters.langgraph
from homeloop.adapters.celery import install, remote
from homeloop.adapters.prometheus import install as export
from homeloop.async_utils import start_event_loop_monitoring

app = Celery("health", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(
    task_default_queue=os.environ["SEED_QUEUE"],
    worker_max_tasks_per_child=int(os.environ.get("MAX_TASKS", "0")) or None,
    control_exchange=f"{os.environ['SEED_QUEUE']}-control",  # other tests' workers must not answer
)
install(app)
assert remote.homeloop
assert homeloop.adapters.langgraph
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    export()
if os.environ.get("WATCHED"):
    start_event_loop_monitoring(interval=0.1)


@app.task
async def process_id() -> int:
    return os.getpid()


class State(TypedDict):
    """What the graph works on."""

    pid: int


async def extract(state: State) -> State:
    """Stay in this node until the test has seen it."""
    while not Path(os.environ["SEED_LOG"]).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.02)
    return state


@app.task(bind=True)
async def walk_graph(self: Any) -> None:
    building: Any = StateGraph(State)  # Any: its types are its own affair
    building.add_node("extract", extract)
    building.set_entry_point("extract")
    self.update_state(state="PROGRESS", meta={"pid": os.getpid()})
    await building.compile().ainvoke({"pid": os.getpid()}, {"configurable": {"thread_id": "case-7"}})
