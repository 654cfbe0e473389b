"""A client is closed by a run of its own, after the one that had used it.

class: LATE_CLEANUP
needs: redis
"""

import asyncio
import os

import redis.asyncio

client = redis.asyncio.from_url(os.environ["WILD_REDIS"])


async def work():
    print(await client.ping())


async def shutdown():
    await client.aclose()


asyncio.run(work())
asyncio.run(shutdown())
