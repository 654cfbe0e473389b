"""Tasks that misuse event loops."""

import asyncio
import os

from celery import Celery

from homeloop.adapters.celery import install

app = Celery("failing", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], task_publish_retry=False)
install(app)


def sync_helper() -> None:
    asyncio.run(asyncio.sleep(0))


@app.task
async def nested() -> None:
    sync_helper()


@app.task
def without_loop() -> None:
    asyncio.get_running_loop()


@app.task
async def own_words() -> None:
    raise RuntimeError("Event loop is closed")
