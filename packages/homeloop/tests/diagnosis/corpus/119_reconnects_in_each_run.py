"""Every run makes its clients anew under the same module's names.

class: LOOKALIKE_FRESH
needs: postgres redis
"""

import asyncio
import os

import asyncpg
import redis.asyncio

pool = client = None


async def main():
    global pool, client
    pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)
    client = redis.asyncio.from_url(os.environ["WILD_REDIS"])
    try:
        await client.ping()
        return await pool.fetchval("select 1")
    finally:
        await client.aclose()
        await pool.close()


for _ in range(3):
    print(asyncio.run(main()))
