"""A pool outlives the loop of its workers; its connection breaks and is not replaced.

class: DEAD_BACKGROUND_WORKER
needs: postgres
"""

import asyncio
import os

from psycopg_pool import AsyncConnectionPool

pool = AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, max_size=1, open=False, timeout=1)


async def execute(statement):
    async with pool.connection() as connection:
        await connection.execute(statement)


async def open_pool():
    await pool.open(wait=True, timeout=10)


asyncio.run(open_pool())
try:
    asyncio.run(execute("select pg_terminate_backend(pg_backend_pid())"))
except Exception as error:
    print(type(error).__name__)
asyncio.run(execute("select 1"))
