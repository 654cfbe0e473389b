"""An async generator over a cursor is advanced by one loop after the other.

class: REUSE_ACROSS_RUNS
needs: postgres
"""

import asyncio
import os

import asyncpg


async def rows():
    connection = await asyncpg.connect(os.environ["WILD_PG"])
    async with connection.transaction():
        async for row in connection.cursor("select generate_series(1, 200)", prefetch=10):
            yield row[0]


def advance(generator, number):
    loop = asyncio.new_event_loop()

    async def some():
        return [await anext(generator) for _ in range(number)]

    return loop.run_until_complete(some())


generator = rows()
print(advance(generator, 3))
print(advance(generator, 30))
