"""A coroutine forks, and its other half asks the same pool.

class: FORK_INHERITED
needs: postgres
"""

import asyncio
import os
import traceback

import psycopg_pool


async def main():
    async with psycopg_pool.AsyncConnectionPool(os.environ["WILD_PG"], min_size=1, max_size=1, open=False) as pool:
        child = os.fork()
        if child == 0:
            try:
                async with pool.connection(timeout=2) as connection:
                    await connection.execute("select 1")
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222


asyncio.run(main())
