"""Greenlets of a pool, each with a new loop for a Redis client of its own.

class: GREENLET_LOOP_COLLISION
needs: redis
"""

from gevent import monkey, pool

monkey.patch_all()

import asyncio  # noqa: E402
import os  # noqa: E402

import redis.asyncio  # noqa: E402


async def visit(number):
    async with redis.asyncio.from_url(os.environ["WILD_REDIS"]) as client:
        await asyncio.sleep(0.05)
        await client.ping()
    return number


def job(number):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(visit(number))
    finally:
        loop.close()


for greenlet in [pool.Pool(4).spawn(job, number) for number in range(4)]:
    try:
        print(greenlet.get())
    except RuntimeError as error:
        print(error)
