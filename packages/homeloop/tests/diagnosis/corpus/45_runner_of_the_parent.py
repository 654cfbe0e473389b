"""A forked worker goes on with its parent's runner and client.

class: FORK_INHERITED
needs: redis
"""

import asyncio
import multiprocessing
import os

import redis.asyncio

client = redis.asyncio.from_url(os.environ["WILD_REDIS"])


async def visit():
    return await client.ping()


with asyncio.Runner() as runner:
    print(runner.run(visit()))
    worker = multiprocessing.get_context("fork").Process(target=lambda: print(runner.run(visit())))
    worker.start()
    worker.join()
