"""An exit hook runs a loop of its own, for clients of its own, and fails for a reason of its own.

class: LOOKALIKE_EXIT
needs:
"""

import asyncio
import atexit

import httpx
from _served import URL


async def say_goodbye():
    async with httpx.AsyncClient() as client:
        (await client.get(URL)).raise_for_status()
    raise OSError("disk full")


async def main():
    async with httpx.AsyncClient() as client:
        return (await client.get(URL)).text


atexit.register(lambda: asyncio.run(say_goodbye()))
print(asyncio.run(main()))
