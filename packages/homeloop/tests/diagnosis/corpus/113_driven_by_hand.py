"""A coroutine with a time-out is stepped by hand from a callback.

class: NO_CURRENT_TASK
needs:
"""

import asyncio


async def work():
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


async def main():
    def step():
        work().send(None)

    asyncio.get_running_loop().call_soon(step)
    await asyncio.sleep(0.05)


asyncio.run(main())
