"""Tasks that each show one thing Celery promises, as ``async def``."""

import asyncio
import os
import threading
from pathlib import Path

from celery import Celery, current_task
from celery.exceptions import SoftTimeLimitExceeded

from homeloop import LoopLocal
from homeloop.adapters.celery import install

app = Celery("features", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], worker_prefetch_multiplier=1)
install(app)

log = Path(os.environ["SEED_LOG"])


def note(line: str) -> None:
    with log.open("a") as file:
        file.write(f"{os.getpid()} {line}\n")


class Resource:
    async def __aenter__(self) -> "Resource":
        note("resource opened")
        return self

    async def __aexit__(self, *_: object) -> None:
        note("resource closed")


resources = LoopLocal(Resource)


@app.task
async def add(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task
def add_sync(x: int, y: int) -> int:
    return x + y


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
async def fail() -> None:
    raise LookupError("async boom")


@app.task(bind=True)
async def who(self, pause: float) -> list[object]:  # type: ignore[no-untyped-def]
    """Each of many interleaved coroutines sees its own request, also after a suspension."""
    before = self.request.id
    await asyncio.sleep(pause)
    return [before, self.request.id, current_task.request.id, threading.current_thread().name]


@app.task(bind=True, max_retries=2)
async def retried(self) -> int:  # type: ignore[no-untyped-def]
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(bind=True, autoretry_for=(ConnectionError,), max_retries=3, retry_backoff=False, default_retry_delay=0)
async def autoretried(self) -> int:  # type: ignore[no-untyped-def]
    if self.request.retries < 2:
        raise ConnectionError("not yet")
    return int(self.request.retries)


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
    await resources.get()
    note("holding")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        note("cleaned")


@app.task(soft_time_limit=1)
async def limited() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        note("cleaned after the limit")


@app.task(soft_time_limit=1)
async def finishes_early() -> str:
    try:
        await asyncio.Event().wait()
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0)
        return "half of it"
    return "all of it"


@app.task
async def use_resource() -> int:
    await resources.get()
    return os.getpid()
