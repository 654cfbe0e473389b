"""Tasks of a group use the pool of the run before: the error comes in a group.

class: REUSE_ACROSS_RUNS
needs: postgres
"""

import asyncio
import os

import asyncpg

pool = None


async def ask(number):
    return await pool.fetchval("select $1::int", number)


async def main():
    global pool
    if pool is None:
        pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=2, max_size=2)
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(ask(number))


asyncio.run(main())
asyncio.run(main())
