"""An app with the recommended settings and nothing else that a worker would take its ways from."""

import asyncio
import os
from pathlib import Path
from typing import Any

from celery import Celery, signals

from homeloop.adapters.celery import install, recommended_config

pool: Any = os.environ["RECOMMENDED_POOL"]
broker: Any = os.environ["RECOMMENDED_BROKER"]
app = Celery("recommended", broker=os.environ["RECOMMENDED_URL"], backend=os.environ["SEED_BROKER"])
app.conf.update(recommended_config(pool, broker))
app.conf.task_default_queue = os.environ["SEED_QUEUE"]
install(app)


@app.task
async def add(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


log = Path(os.environ["SEED_LOG"])


@signals.worker_ready.connect
def tell(sender: Any, **_: object) -> None:
    kind = type(sender.pool)
    log.write_text(f"{kind.__module__}.{kind.__name__} {sender.pool.limit}")
