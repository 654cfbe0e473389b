"""taskiq's tasks; ``python taskiq_queue.py TASK COUNT`` sends them."""

import asyncio
import os
import sys

import workload
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

results = RedisAsyncResultBackend(os.environ["BENCH_RESULTS"])
broker = ListQueueBroker(os.environ["BENCH_BROKER"]).with_result_backend(results)

tasks = {each: broker.register_task(getattr(workload, each), task_name=each) for each in ("io", "noop")}


async def send(name: str, count: int) -> None:
    """Send a task many times."""
    await broker.startup()
    for _ in range(count):
        await tasks[name].kiq()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], int(sys.argv[2])))
