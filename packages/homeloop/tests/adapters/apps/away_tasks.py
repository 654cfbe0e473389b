"""A task that is cut off when its worker's broker goes away, and ends when it is delivered again."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from celery import Celery

from homeloop.adapters.celery import install, recommended_config

pool: Any = os.environ["AWAY_POOL"]
app = Celery("away", broker=os.environ["AWAY_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(recommended_config(pool, "redis"))
app.conf.broker_transport_options |= json.loads(os.environ.get("AWAY_TRANSPORT", "{}"))
app.conf.task_default_queue = os.environ["SEED_QUEUE"]
install(app)

log = Path(os.environ["SEED_LOG"])


def runs() -> int:
    """Note a run; return how many there are."""
    with log.open("a") as file:
        file.write("begun\n")
    return log.read_text().count("begun")


@app.task
async def held() -> str:
    if runs() == 1:
        await asyncio.Event().wait()
    return "second run"
