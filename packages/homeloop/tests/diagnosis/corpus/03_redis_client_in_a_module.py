"""A global client, asked from a second run.

class: REUSE_ACROSS_RUNS
needs: redis
"""

import asyncio
import os

import redis.asyncio

client = redis.asyncio.from_url(os.environ["WILD_REDIS"])


async def visit():
    async with client.pipeline() as pipe:
        pipe.ping()
        return await pipe.execute()


for _ in range(2):
    print(asyncio.run(visit()))
