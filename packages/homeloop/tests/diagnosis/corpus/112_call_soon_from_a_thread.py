"""A thread schedules on the loop without waking it.

class: UNSAFE_CROSS_THREAD
needs:
"""

import asyncio
import threading


async def main():
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.call_soon(done.set))
    thread.start()
    await asyncio.wait_for(done.wait(), 3)


asyncio.run(main())
