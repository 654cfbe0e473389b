"""A worker thread runs a loop of its own on the application's connection, which waits for an answer.

class: TWO_LIVE_LOOPS
needs: postgres
"""

import asyncio
import os
import threading

import asyncpg

begun = threading.Event()


async def main():
    connection = await asyncpg.connect(os.environ["WILD_PG"])

    def report():
        begun.wait(5)
        asyncio.run(connection.execute("select 1"))

    thread = asyncio.create_task(asyncio.to_thread(report))
    query = asyncio.create_task(connection.fetchval("select pg_sleep(0.5)"))
    asyncio.get_running_loop().call_later(0.1, begun.set)
    try:
        await thread
    finally:
        await query
        await connection.close()


asyncio.run(main())
