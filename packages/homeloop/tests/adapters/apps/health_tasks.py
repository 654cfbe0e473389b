"""An app whose workers are watched, by Celery's remote control and by Prometheus."""

import os

from celery import Celery

from homeloop.adapters.celery import install, remote
from homeloop.adapters.prometheus import install as export
from homeloop.async_utils import start_event_loop_monitoring

app = Celery("health", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(
    task_default_queue=os.environ["SEED_QUEUE"],
    control_exchange=f"{os.environ['SEED_QUEUE']}-control",  # other tests' workers must not answer
)
install(app)
assert remote.homeloop
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    export()
if os.environ.get("WATCHED"):
    start_event_loop_monitoring(interval=0.1)


@app.task
async def process_id() -> int:
    return os.getpid()
