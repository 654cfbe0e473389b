"""Forked workers of a process pool use the parent's pool.

class: FORK_INHERITED
needs: postgres
"""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import asyncpg

pool = None


async def ask():
    return await asyncio.wait_for(pool.fetchval("select 1"), 3)


def child():
    return asyncio.run(ask())


async def main():
    global pool
    pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)
    await pool.fetchval("select 1")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as processes:
        try:
            print(await asyncio.get_running_loop().run_in_executor(processes, child))
        finally:
            pool.terminate()


asyncio.run(main())
