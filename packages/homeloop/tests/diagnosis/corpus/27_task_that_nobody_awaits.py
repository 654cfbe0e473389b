"""A task is started for later; the run ends before.

class: TASK_SPILLOVER
needs:
"""

import asyncio

saved = []


async def save(item):
    await asyncio.sleep(0.05)
    saved.append(item)


async def handle(item):
    asyncio.create_task(save(item))  # noqa: RUF006 - the fault
    return "accepted"


print(asyncio.run(handle("a")), saved)
