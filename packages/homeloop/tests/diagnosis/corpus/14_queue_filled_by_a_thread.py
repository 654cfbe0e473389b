"""A thread puts into a queue; the loop is not woken.

class: UNSAFE_CROSS_THREAD
needs:
"""

import asyncio
import threading


async def main():
    queue = asyncio.Queue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)

    def progress():
        queue.put_nowait("50 %")

    thread = threading.Thread(target=progress)
    thread.start()
    await asyncio.to_thread(thread.join)
    print(await asyncio.wait_for(waiting, 5))


asyncio.run(main())
