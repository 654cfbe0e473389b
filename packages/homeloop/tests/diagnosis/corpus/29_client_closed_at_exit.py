"""An exit hook closes a client on a loop made for the purpose.

class: LATE_CLEANUP
needs:
"""

import asyncio
import atexit

import httpx
from _served import URL

client = httpx.AsyncClient()


async def main():
    return (await client.get(URL)).text


atexit.register(lambda: asyncio.run(client.aclose()))
print(asyncio.run(main()))
