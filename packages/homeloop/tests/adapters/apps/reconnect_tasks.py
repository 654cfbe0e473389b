"""Tasks for a worker that loses its connection to RabbitMQ, which one of them cuts; notes who asks how much."""

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

from amqp.channel import Channel
from celery import Celery, bootsteps

from homeloop.adapters.celery import install

app = Celery("reconnect", broker=os.environ["RECONNECT_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(
    task_default_queue=os.environ["SEED_QUEUE"],
    control_exchange=os.environ["SEED_QUEUE"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
install(app)

log = Path(os.environ["SEED_LOG"])
flag = log.with_name("released")
consumer: Any = None


def note(line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


class NoteConnections(bootsteps.StartStopStep):
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        global consumer
        consumer = parent
        note("connected")


app.steps["consumer"].add(NoteConnections)

_basic_qos = Channel.basic_qos


def noted_qos(self: Any, prefetch_size: int, prefetch_count: int, a_global: bool, **options: Any) -> Any:
    note(f"prefetch {prefetch_count} by {threading.current_thread().name}")
    return _basic_qos(self, prefetch_size, prefetch_count, a_global, **options)


Channel.basic_qos = noted_qos


@app.task
async def held() -> None:
    note("begun")
    while not flag.exists():  # noqa: ASYNC110  another process sets it
        await asyncio.sleep(0.02)


@app.task
def cut() -> None:
    """End the worker's connection as a broker does that is killed; the first time only, as it comes again."""
    if not flag.with_name("cut").exists():
        flag.with_name("cut").touch()
        ours = socket.socket(fileno=os.dup(consumer.connection.connection.sock.fileno()))
        with ours:
            ours.shutdown(socket.SHUT_RDWR)


@app.task
def add(x: int, y: int) -> int:
    return x + y
