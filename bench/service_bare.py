"""FastAPI and Celery put together by hand, for bench/service.py: a request waits for its task; nothing is kept."""

import asyncio
import os
from typing import Any

from celery import Celery
from fastapi import FastAPI
from service_peers import two_steps

tasks = Celery("bare", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
tasks.conf.task_default_queue = "bare"
graph = two_steps().compile()
api = FastAPI()


@tasks.task
def run(text: str) -> dict[str, Any]:
    """Run the graph on a loop of the task's own."""
    return dict(asyncio.run(graph.ainvoke({"text": text})))


@api.post("/run")
def ask(body: dict[str, str]) -> Any:
    """Wait, on a thread, for the result."""
    return run.delay(body["text"]).get(timeout=60)


@api.get("/health")
def health() -> str:
    """Answer."""
    return "well"
