"""A finalizer starts a loop to close a session of a run that has ended.

class: LATE_CLEANUP
needs:
"""

import asyncio

import aiohttp
import httpx
from _served import URL


class Client:
    async def open(self):
        self.session = aiohttp.ClientSession()
        async with self.session.get(URL) as response:
            return await response.text()

    def __del__(self):
        asyncio.run(self.session.close())


client = Client()
print(asyncio.run(client.open()))


class Other:
    async def open(self):
        self.http = httpx.AsyncClient()
        return (await self.http.get(URL)).text

    def __del__(self):
        asyncio.run(self.http.aclose())


other = Other()
print(asyncio.run(other.open()))
del other
del client
