"""Work in the executor starts a task on the loop directly.

class: UNSAFE_CROSS_THREAD
needs:
"""

import asyncio


async def notify(percent):
    print(percent)


async def main():
    loop = asyncio.get_running_loop()

    def work():
        for percent in (50, 100):
            loop.create_task(notify(percent))  # noqa: RUF006

    await loop.run_in_executor(None, work)
    await asyncio.sleep(0.05)


asyncio.run(main())
