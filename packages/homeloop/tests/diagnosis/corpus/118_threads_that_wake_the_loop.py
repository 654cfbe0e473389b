"""Threads hand over by call_soon_threadsafe and its like; a callback fails for a reason of its own.

class: LOOKALIKE_WAKE
needs:
"""

import asyncio
import threading


async def main():
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    async def add(number):
        await queue.put(10 / number)

    def job():
        for number in (1, 2):
            loop.call_soon_threadsafe(queue.put_nowait, number)
        asyncio.run_coroutine_threadsafe(add(5), loop).result(5)
        try:
            asyncio.run_coroutine_threadsafe(add(0), loop).result(5)
        except ZeroDivisionError:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    thread = threading.Thread(target=job)
    thread.start()
    while (item := await queue.get()) is not None:
        print(item)
    await asyncio.to_thread(thread.join)
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)


asyncio.run(main())
