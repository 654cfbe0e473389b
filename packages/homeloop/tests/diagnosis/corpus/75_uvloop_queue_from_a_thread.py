"""A thread fills the queue of a uvloop.

class: UNSAFE_CROSS_THREAD
needs:
"""

import asyncio
import threading

import uvloop


async def main():
    queue = asyncio.Queue()
    thread = threading.Thread(target=lambda: [queue.put_nowait(number) for number in range(3)])
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    thread.start()
    await asyncio.to_thread(thread.join)
    print(await getting)


uvloop.run(main())
