"""A session of one uvloop is used on the next.

class: REUSE_ACROSS_RUNS
needs:
"""

import aiohttp
import uvloop
from _served import URL

session = None


async def main():
    global session
    if session is None:
        session = aiohttp.ClientSession()
    async with session.get(URL) as response:
        return await response.text()


print(uvloop.run(main()))
print(uvloop.run(main()))
