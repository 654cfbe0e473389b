"""A rate limiter at module level, with load in two runs.

class: PRIMITIVE_REBIND
needs:
"""

import asyncio

limit = asyncio.Semaphore(2)


async def call():
    async with limit:
        await asyncio.sleep(0.01)


async def main():
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(call())


for _ in range(2):
    asyncio.run(main())
