"""Look-alike: a pool with one connection, which somebody has.

class: LOOKALIKE_BUSY_POOL
needs: postgres
"""

import asyncio
import os

from psycopg_pool import AsyncConnectionPool


async def main():
    async with (
        AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, max_size=1, timeout=0.3, open=False) as pool,
        pool.connection(),
        pool.connection(),
    ):
        print("two of one")


asyncio.run(main())
