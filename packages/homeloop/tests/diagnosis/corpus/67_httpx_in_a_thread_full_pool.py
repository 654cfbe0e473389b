"""A thread's loop waits for the one connection of a client of the main loop.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio

import httpx
from _served import URL


async def main():
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:

        async def get():
            async with client.stream("GET", URL) as response:
                await asyncio.sleep(0.3)
                return await response.aread()

        first = asyncio.create_task(get())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(lambda: asyncio.run(get()))
        await first


asyncio.run(main())
