"""A connection is used after its pool has taken it back.

class: USE_AFTER_CONTEXT_EXIT
needs: postgres
"""

import asyncio
import os

import asyncpg


async def main():
    async with asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            print(await connection.fetchval("select 1"))
        return await connection.fetchval("select 2")


asyncio.run(main())
