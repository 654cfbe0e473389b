"""A thread sets an asyncio event that a coroutine waits for.

class: UNSAFE_CROSS_THREAD
needs:
"""

import asyncio
import threading


async def main():
    done = asyncio.Event()
    waiting = asyncio.create_task(done.wait())
    await asyncio.sleep(0)
    threading.Timer(0.1, done.set).start()
    await asyncio.wait_for(waiting, 1)


asyncio.run(main())
