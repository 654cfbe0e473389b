"""A forked child goes on with the connection of its parent, on a loop of its own.

class: FORK_INHERITED
needs: redis
"""

import asyncio
import os

import redis.asyncio

client = redis.asyncio.from_url(os.environ["WILD_REDIS"])


async def ask():
    return await client.ping()


print(asyncio.run(ask()))
child = os.fork()
if child == 0:
    try:
        print(asyncio.run(ask()))
    except Exception:
        import traceback

        traceback.print_exc()
    os._exit(0)
os.waitpid(child, 0)
