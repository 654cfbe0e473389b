"""Threads that hand over, each in the way that is made for it.

class: LOOKALIKE_PROPER_THREADS
needs:
"""

import asyncio
import threading


async def main():
    loop, queue, done = asyncio.get_running_loop(), asyncio.Queue(), asyncio.Event()

    def work():
        for number in range(3):
            loop.call_soon_threadsafe(queue.put_nowait, number)
        asyncio.run_coroutine_threadsafe(queue.put(3), loop).result()
        asyncio.run(asyncio.sleep(0))
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=work)
    thread.start()
    await done.wait()
    await asyncio.to_thread(thread.join)
    print([queue.get_nowait() for _ in range(queue.qsize())])


asyncio.run(main())
