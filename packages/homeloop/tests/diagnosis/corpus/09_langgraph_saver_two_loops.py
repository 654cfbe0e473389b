"""Graphs on two loops contend for one saver's lock.

class: TWO_LIVE_LOOPS
needs: postgres
"""

import asyncio
import os
import threading
import uuid

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

BARRIER = threading.Barrier(2, timeout=10)


async def main():
    async with AsyncPostgresSaver.from_conn_string(os.environ["WILD_PG"]) as saver:
        await saver.setup()

        async def read_all(name):
            config = {"configurable": {"thread_id": f"{name}-{uuid.uuid4()}", "checkpoint_ns": ""}}
            for _ in range(20):
                await asyncio.gather(*(saver.aget_tuple(config) for _ in range(5)))

        def other():
            BARRIER.wait()
            asyncio.run(asyncio.wait_for(read_all("b"), 5))

        thread = asyncio.create_task(asyncio.to_thread(other))
        await asyncio.to_thread(BARRIER.wait)
        await asyncio.gather(read_all("a"), thread)


asyncio.run(main())
