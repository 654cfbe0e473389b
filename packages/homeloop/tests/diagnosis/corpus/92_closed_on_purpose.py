"""Pools and clients are closed on their own loop, and asked again.

class: LOOKALIKE_CLOSED
needs: postgres redis
"""

import asyncio
import logging
import os

import asyncpg
from psycopg_pool import AsyncConnectionPool

log = logging.getLogger("app")


async def main():
    pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)
    await pool.close()
    other = AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, open=False)
    await other.open()
    await other.close()

    async def ask():
        async with other.connection() as connection:
            await connection.execute("select 1")

    for what in (pool.fetchval("select 1"), ask()):
        try:
            await what
        except Exception:
            log.exception("closed")


asyncio.run(main())
