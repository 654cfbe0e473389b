"""An event that was waited for in an earlier run.

class: PRIMITIVE_REBIND
needs:
"""

import asyncio

ready = asyncio.Event()


async def wait_a_moment():
    try:
        async with asyncio.timeout(0.05):
            await ready.wait()
    except TimeoutError:
        print("not yet")


for _ in range(2):
    asyncio.run(wait_a_moment())
