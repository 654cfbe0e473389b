"""A coroutine on a thread's loop sets the event that the main loop waits for.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio


async def main():
    event = asyncio.Event()

    async def tell():
        event.set()

    waiting = asyncio.create_task(asyncio.wait_for(event.wait(), 2))
    await asyncio.sleep(0)
    await asyncio.to_thread(lambda: asyncio.run(tell()))
    await waiting


asyncio.run(main())
