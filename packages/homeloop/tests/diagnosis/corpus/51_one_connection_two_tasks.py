"""Look-alike: two tasks of one loop share a connection.

class: LOOKALIKE_SHARED_CONNECTION
needs: postgres
"""

import asyncio
import os

import asyncpg


async def main():
    connection = await asyncpg.connect(os.environ["WILD_PG"])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.fetchval("select pg_sleep(0.1)"))
            group.create_task(connection.fetchval("select 1"))
    finally:
        await connection.close(timeout=5)


asyncio.run(main())
