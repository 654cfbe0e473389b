"""A bounded queue of a module, full in both runs.

class: PRIMITIVE_REBIND
needs:
"""

import asyncio

queue = asyncio.Queue(1)


async def main():
    async def fill():
        for number in range(3):
            await queue.put(number)

    filling = asyncio.create_task(fill())
    await asyncio.sleep(0)
    for _ in range(3):
        await queue.get()
    await filling


asyncio.run(main())
asyncio.run(main())
