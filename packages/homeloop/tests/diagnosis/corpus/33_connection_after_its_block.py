"""A connection is used after the block that closed it.

class: USE_AFTER_CONTEXT_EXIT
needs: postgres
"""

import asyncio
import os

import psycopg


async def main():
    async with await psycopg.AsyncConnection.connect(os.environ["WILD_PG"]) as connection:
        await connection.execute("select 1")
    await connection.execute("select 2")


asyncio.run(main())
