"""Tasks that ask a service through a client that the process keeps."""

import os

from celery import Celery
from sdks import SDKS

from homeloop.adapters.celery import install

app = Celery("sdks", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], task_publish_retry=False)
install(app)

kept = {name: sdk.make(os.environ["SITE"]) for name, sdk in SDKS.items()}


@app.task
async def ask(name: str, text: str) -> str:
    return await SDKS[name].ask(kept[name], text)
