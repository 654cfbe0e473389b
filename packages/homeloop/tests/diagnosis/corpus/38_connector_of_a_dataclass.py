"""A connector that is made with a class, and keeps its connections for the next run.

class: REUSE_ACROSS_RUNS
needs:
"""

import asyncio
from dataclasses import dataclass, field

import aiohttp
from _served import URL


@dataclass
class Crawler:
    session: aiohttp.ClientSession | None = field(default=None)

    async def page(self):
        self.session = self.session or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        async with self.session.get(URL) as answer:
            return await answer.text()


crawler = Crawler()
with asyncio.Runner() as runner:
    print(runner.run(crawler.page()))
with asyncio.Runner() as runner:
    print(runner.run(crawler.page()))
