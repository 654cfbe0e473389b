"""An app whose warm-ups hang: one waits for ever, one blocks the loop for a while."""

import asyncio
import os
import time

from celery import Celery

from homeloop.adapters.celery import install

warmed: list[str] = []


async def hangs() -> None:
    await asyncio.Event().wait()


async def blocks() -> None:
    time.sleep(3)  # noqa: ASYNC251


async def is_fast() -> None:
    warmed.append("is fast")


app = Celery("warm-up", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], worker_max_tasks_per_child=1)
install(app, warm_up=[is_fast, {"hangs": hangs, "blocks": blocks}[os.environ["WARM_UP"]]], warm_up_timeout=2)


@app.task
async def what_is_warm() -> list[str]:
    return warmed
