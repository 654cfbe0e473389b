"""A done callback waits for the rest of the work on the loop that calls it.

class: NESTED_RUN
needs:
"""

import asyncio


async def store(result):
    await asyncio.sleep(0)


def on_done(task):
    task.get_loop().run_until_complete(store(task.result()))


async def main():
    task = asyncio.create_task(asyncio.sleep(0, 42))
    task.add_done_callback(on_done)
    await task
    await asyncio.sleep(0.01)


asyncio.run(main())
