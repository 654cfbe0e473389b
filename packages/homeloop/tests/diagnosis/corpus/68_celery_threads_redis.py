"""A worker of threads, whose tasks start loops for one client.

class: TWO_LIVE_LOOPS
needs: redis
"""

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path

import redis
import redis.asyncio
from celery import Celery

broker = os.environ["WILD_REDIS"]
app = Celery("corpus", broker=broker, backend=broker)
app.conf.task_default_queue = os.environ.setdefault("CORPUS_QUEUE", f"corpus-{uuid.uuid4().hex}")
app.conf.result_expires = 60
client = redis.asyncio.BlockingConnectionPool.from_url(broker, max_connections=1)


async def ask():
    connection = redis.asyncio.Redis(connection_pool=client)
    for _ in range(20):
        await connection.blpop("nothing-here", 0.05)


def run(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


@app.task(name="corpus.job")
def job():
    return run(ask())


if __name__ == "__main__":
    name = Path(__file__).stem
    options = [
        "-P",
        "threads",
        "-c",
        "2",
        "-l",
        "WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    with subprocess.Popen([sys.executable, "-m", "celery", "-A", name, "worker", *options]) as worker:
        for result in [job.delay(), job.delay()]:
            print(repr(result.get(timeout=20, propagate=False)))
        worker.terminate()
    with redis.Redis.from_url(broker) as client:
        for key in client.scan_iter(f"*{app.conf.task_default_queue}*"):
            client.delete(key)
