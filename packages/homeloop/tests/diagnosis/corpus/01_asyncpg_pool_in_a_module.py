"""A pool that is kept in a module, and one asyncio.run() per job.

class: REUSE_ACROSS_RUNS
needs: postgres
"""

import asyncio
import os

import asyncpg

pool = None


async def count():
    global pool
    if pool is None:
        pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)
    return await pool.fetchval("select count(*) from pg_class")


for _ in range(2):
    print(asyncio.run(count()))
