"""Forked children open what they need; one fails for a reason of its own.

class: LOOKALIKE_FORK
needs: postgres
"""

import asyncio
import multiprocessing
import os

import asyncpg


async def work(number):
    connection = await asyncpg.connect(os.environ["WILD_PG"])
    try:
        return await connection.fetchval("select 1 / $1::int", number)
    finally:
        await connection.close()


def child(number):
    return asyncio.run(work(number))


if __name__ == "__main__":
    print(asyncio.run(work(1)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(child, [1, 2]))
        print(pool.map(child, [0]))
