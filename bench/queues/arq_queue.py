"""arq's jobs; ``python arq_queue.py TASK COUNT`` sends them."""

import asyncio
import os
import sys
from typing import Any

import workload
from arq import create_pool
from arq.connections import RedisSettings


async def io(_: Any) -> float:
    """Wait."""
    return await workload.io()


async def noop(_: Any) -> float:
    """Do nothing."""
    return await workload.noop()


class WorkerSettings:
    """What ``arq`` starts."""

    functions = (io, noop)
    redis_settings = RedisSettings.from_dsn(os.environ["BENCH_BROKER"])
    max_jobs = 1000
    keep_result = 3600


async def send(name: str, count: int) -> None:
    """Send a job many times."""
    pool = await create_pool(WorkerSettings.redis_settings)
    for _ in range(count):
        await pool.enqueue_job(name)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], int(sys.argv[2])))
