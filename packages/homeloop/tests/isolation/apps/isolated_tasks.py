"""A Celery application whose tasks use the process tier; run as a program it calls them."""

import os

import isolated_work as work
from celery import Celery

import homeloop
from homeloop import Isolation

app = Celery("isolated_tasks", broker=os.environ["APP_REDIS"], backend=os.environ["APP_REDIS"])
app.conf.update(
    task_default_queue=os.environ["APP_QUEUE"], result_expires=60, broker_connection_retry_on_startup=True
)


@app.task
def isolated_pid(number: int) -> int:
    """Run two things in another process; return its number."""
    assert homeloop.run_isolated_sync(work.identity, number, isolation=Isolation.PROCESS) == number
    pid, _ = homeloop.run_isolated_sync(work.where, isolation=Isolation.PROCESS)
    assert pid != os.getpid()
    return pid


if __name__ == "__main__":
    results = [isolated_pid.delay(number) for number in range(8)]
    print(*(result.get(timeout=50) for result in results))
    for result in results:
        result.forget()
