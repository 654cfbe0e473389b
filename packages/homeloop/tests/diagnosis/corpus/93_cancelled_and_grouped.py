"""Groups are cancelled because one of their tasks failed for a reason of its own.

class: LOOKALIKE_CANCELLED
needs:
"""

import asyncio


async def fail():
    await asyncio.sleep(0.05)
    raise ValueError("no such order")


async def wait():
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        raise


async def main():
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel("enough")
    try:
        await task
    except asyncio.CancelledError as error:
        print("cancelled", error)
    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        group.create_task(fail())


asyncio.run(main())
