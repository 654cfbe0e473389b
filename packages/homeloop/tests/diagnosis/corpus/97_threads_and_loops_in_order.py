"""Each thread has a loop and clients of its own; one of them fails for a reason of its own.

class: LOOKALIKE_ORDER
needs: postgres
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import asyncpg


async def work(number):
    async with asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1) as pool:
        return await pool.fetchval("select 1 / $1::int", number)


async def main():
    async with asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1) as pool:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(3) as threads:
            jobs = [loop.run_in_executor(threads, lambda n=n: asyncio.run(work(n))) for n in (1, 2, 0)]
            done = await asyncio.gather(*jobs, return_exceptions=True)
        await pool.fetchval("select 1")
        for each in done:
            if isinstance(each, BaseException):
                raise each


asyncio.run(main())
