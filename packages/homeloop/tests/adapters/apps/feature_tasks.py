"""Tasks for what the table of pools has no row for."""

import asyncio
import os
from pathlib import Path

from celery import Celery, current_task

from homeloop.adapters.celery import install

app = Celery("features", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], worker_prefetch_multiplier=1)
install(app)

log = Path(os.environ["SEED_LOG"])


def note(line: str) -> None:
    with log.open("a") as file:
        file.write(f"{os.getpid()} {line}\n")


@app.task
async def add(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task
async def leaves_a_task_behind() -> None:
    """A background task that outlives its Celery task must not see the next one's request."""

    go_on = asyncio.Event()

    async def look_later() -> None:
        await go_on.wait()
        note(f"background sees {current_task and current_task.request.id}")

    left_behind.append((go_on, asyncio.create_task(look_later())))


left_behind: list[tuple[asyncio.Event, "asyncio.Task[None]"]] = []


@app.task
async def next_one() -> None:
    for go_on, background in left_behind:
        go_on.set()
        await background


@app.task
async def hold() -> None:
    """Waits for ever; its clean-up says that it ran."""
    note("holding")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        note("cleaned")
