"""A patched loop runs inside itself, and needs a lock that the outer coroutine holds.

class: NEST_REENTRANCY
needs:
"""

import asyncio

import nest_asyncio2

nest_asyncio2.apply()
lock = asyncio.Lock()


async def inner():
    async with asyncio.timeout(2):
        async with lock:
            return 1


async def outer():
    async with lock:
        return asyncio.run(inner())


asyncio.run(outer())
