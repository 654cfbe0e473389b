"""A session that an object keeps for its next run.

class: REUSE_ACROSS_RUNS
needs:
"""

import asyncio

import aiohttp
from _served import URL


class Api:
    session = None

    async def get(self):
        self.session = self.session or aiohttp.ClientSession()
        async with self.session.get(URL) as response:
            return await response.text()


api = Api()
print(asyncio.run(api.get()))
print(asyncio.run(api.get()))
