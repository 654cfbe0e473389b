"""A real worker: the second job of a prefork child asks the engine of the first one's loop.

class: REUSE_ACROSS_RUNS
needs: postgres redis
"""

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path

import redis
from celery import Celery
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

broker = os.environ["WILD_REDIS"]
app = Celery("corpus", broker=broker, backend=broker)
app.conf.task_default_queue = os.environ.setdefault("CORPUS_QUEUE", f"corpus-{uuid.uuid4().hex}")
app.conf.result_expires = 60
engine = create_async_engine(os.environ["WILD_PG"].replace("postgresql://", "postgresql+asyncpg://"))


async def ask():
    async with engine.connect() as connection:
        return (await connection.execute(text("select 1"))).scalar_one()


@app.task(name="corpus.job")
def job():
    return asyncio.run(ask())


if __name__ == "__main__":
    name = Path(__file__).stem
    options = ["-c", "1", "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with subprocess.Popen([sys.executable, "-m", "celery", "-A", name, "worker", *options]) as worker:
        for result in [job.delay(), job.delay()]:
            print(result.get(timeout=20, propagate=False))
        worker.terminate()
    with redis.Redis.from_url(broker) as client:
        for key in client.scan_iter(f"*{app.conf.task_default_queue}*"):
            client.delete(key)
