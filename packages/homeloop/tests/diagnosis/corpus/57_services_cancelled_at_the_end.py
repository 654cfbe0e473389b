"""Look-alike: pools and clients that are closed in order, on two loops one after the other.

class: LOOKALIKE_SERVICES
needs: postgres redis
"""

import asyncio
import os

import asyncpg
import httpx
import redis.asyncio
from _served import URL
from psycopg_pool import AsyncConnectionPool


async def main():
    async with (
        asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=2) as pool,
        AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, open=False) as other,
        httpx.AsyncClient() as client,
        redis.asyncio.from_url(os.environ["WILD_REDIS"]) as cache,
    ):
        await asyncio.gather(*(pool.fetchval("select pg_sleep(0.01)") for _ in range(5)))
        async with other.connection() as connection:
            await connection.execute("select 1")
        await client.get(URL)
        await cache.ping()


for _ in range(2):
    asyncio.run(main())
