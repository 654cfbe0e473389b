"""A half-consumed generator stays on a loop that is closed.

class: ASYNCGEN_CLEANUP
needs:
"""

import asyncio


async def stream():
    try:
        for number in range(10):
            yield number
    finally:
        await asyncio.sleep(0)
        print("closed")


async def first():
    return await anext(kept)


kept = stream()
loop = asyncio.new_event_loop()
print(loop.run_until_complete(first()))
loop.close()
