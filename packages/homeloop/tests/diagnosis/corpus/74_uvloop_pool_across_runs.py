"""A pool of one uvloop is used on the next.

class: REUSE_ACROSS_RUNS
needs: postgres
"""

import os

import asyncpg
import uvloop

pool = None


async def main():
    global pool
    if pool is None:
        pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=2)
    async with pool.acquire() as connection:
        return await connection.fetchval("select 1")


print(uvloop.run(main()))
print(uvloop.run(main()))
