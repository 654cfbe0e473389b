"""A loop is closed while a pool's workers wait on it.

class: TASK_SPILLOVER
needs: postgres
"""

import asyncio
import os

from psycopg_pool import AsyncConnectionPool


async def open_pool():
    pool = AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, open=False)
    await pool.open(wait=True, timeout=10)
    return pool


loop = asyncio.new_event_loop()
kept = loop.run_until_complete(open_pool())
loop.close()
