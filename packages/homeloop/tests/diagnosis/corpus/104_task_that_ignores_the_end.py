"""asyncio.run() waits for a task that it has cancelled, and that goes on.

class: TASK_SPILLOVER
needs:
timeout: 10
"""

import asyncio


async def poll():
    while True:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            print("not now")


async def main():
    task = asyncio.create_task(poll())
    await asyncio.sleep(0.2)
    print(task.done())


asyncio.run(main())
