"""Celery's tasks, in the form that ``BENCH_FORM`` asks for; ``python celery_queue.py TASK COUNT`` sends them."""

import asyncio
import os
import sys
from typing import Any

import workload
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.worker_prefetch_multiplier = int(os.environ.get("BENCH_PREFETCH", "4"))
form = os.environ.get("BENCH_FORM", "sync")


def in_form(name: str) -> Any:
    """Return the work as the pool wants it."""
    work = getattr(workload, name)
    if form == "async":
        return work
    if form == "sync":
        return getattr(workload, f"{name}_sync")

    def run() -> float:
        return asyncio.run(work())  # type: ignore[no-any-return]

    return run


if os.environ.get("BENCH_INSTALL"):
    from homeloop.adapters.celery import install

    install(app)

for each in ("io", "noop", "asleep"):
    app.task(in_form(each), name=each)

if __name__ == "__main__":
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        for _ in range(int(sys.argv[2])):
            app.send_task(sys.argv[1], producer=producer)
