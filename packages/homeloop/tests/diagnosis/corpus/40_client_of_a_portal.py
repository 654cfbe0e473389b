"""A client that was made in AnyIO's portal, used on the main loop.

class: TWO_LIVE_LOOPS
needs: redis
"""

import asyncio
import os

import redis.asyncio
from anyio.from_thread import start_blocking_portal


async def connect():
    client = redis.asyncio.Redis.from_url(os.environ["WILD_REDIS"], single_connection_client=True)
    await client.ping()
    return client


async def main(client):
    print(await client.ping())


with start_blocking_portal() as portal:
    client = portal.call(connect)
    try:
        asyncio.run(main(client))
    finally:
        portal.call(client.aclose)
