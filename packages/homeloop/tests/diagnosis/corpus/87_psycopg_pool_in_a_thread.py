"""A thread's loop waits for a connection of the main loop's pool, which is in use.

class: TWO_LIVE_LOOPS
needs: postgres
"""

import asyncio
import os

from psycopg_pool import AsyncConnectionPool


async def main():
    async with AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, max_size=1, timeout=3, open=False) as pool:

        async def ask():
            async with pool.connection() as connection:
                return await connection.execute("select 1")

        async with pool.connection():
            await asyncio.to_thread(lambda: asyncio.run(ask()))


asyncio.run(main())
