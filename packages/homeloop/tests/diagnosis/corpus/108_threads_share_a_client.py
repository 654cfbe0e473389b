"""Threads of a pool, each with asyncio.run(), share one redis client.

class: TWO_LIVE_LOOPS
needs: redis
"""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import redis.asyncio

client = redis.asyncio.Redis.from_url(os.environ["WILD_REDIS"], max_connections=1, single_connection_client=True)


async def ask(number):
    for _ in range(20):
        await client.blpop("nothing-here", 0.02)


def job(number):
    return asyncio.run(ask(number))


with ThreadPoolExecutor(3) as threads:
    for future in [threads.submit(job, number) for number in range(3)]:
        try:
            print(future.result(timeout=20))
        except Exception:
            logging.getLogger("jobs").exception("job")
