"""A Celery application whose tasks leave marks in a folder: the broker is BROKER_URL, the folder MARKS."""

import os
import time
import uuid
from pathlib import Path

from celery import Celery

from workflow_service.gateways.filesystem_broker import register

register()
marks = Path(os.environ["MARKS"])
app = Celery("jobs", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_default_queue="jobs.test",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=False,
)


@app.task(bind=True)
def work(self, number: int) -> None:
    """Take 20 ms; every start and every end leaves a file."""
    again = "again" if self.request.delivery_info["redelivered"] else "first"
    (marks / f"{number}.started.{again}.{uuid.uuid4().hex}").touch()
    time.sleep(0.02)  # the work
    (marks / f"{number}.done.{uuid.uuid4().hex}").touch()


@app.task
def wait_for_gate() -> None:
    """Run until the file ``gate`` stands."""
    (marks / f"waiting.{uuid.uuid4().hex}").touch()
    while not (marks / "gate").exists():
        time.sleep(0.01)
    (marks / f"passed.{uuid.uuid4().hex}").touch()
