"""One session, two live loops.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from _served import URL


async def main():
    async with aiohttp.ClientSession() as session:

        async def get():
            async with session.get(URL) as response:
                return response.status

        print(await get())
        with ThreadPoolExecutor() as pool:
            print(await asyncio.get_running_loop().run_in_executor(pool, lambda: asyncio.run(get())))


asyncio.run(main())
