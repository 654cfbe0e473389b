"""SAQ's jobs; ``python saq_queue.py TASK COUNT`` sends them."""

import asyncio
import os
import sys
from typing import Any

import redis.asyncio
import workload
from saq.queue.redis import RedisQueue


async def io(_: Any) -> float:
    """Wait."""
    return await workload.io()


async def noop(_: Any) -> float:
    """Do nothing."""
    return await workload.noop()


# redis-py gives 100 connections unless told otherwise.
queue = RedisQueue(redis.asyncio.from_url(os.environ["BENCH_BROKER"], max_connections=2000))
settings = {"queue": queue, "functions": [io, noop], "concurrency": 1000}


async def send(name: str, count: int) -> None:
    """Send a job many times."""
    await queue.connect()
    for _ in range(count):
        await queue.enqueue(name)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], int(sys.argv[2])))
