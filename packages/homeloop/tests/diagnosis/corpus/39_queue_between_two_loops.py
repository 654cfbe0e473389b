"""A producer with a loop of its own awaits put() on the consumer's full queue.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio
import threading


async def main():
    queue = asyncio.Queue(maxsize=1)
    await queue.put("first")
    blocked = asyncio.create_task(queue.put("second"))
    await asyncio.sleep(0)

    async def produce():
        await asyncio.wait_for(queue.put("third"), 0.5)

    thread = threading.Thread(target=lambda: asyncio.run(produce()), name="producer")
    thread.start()
    await asyncio.to_thread(thread.join)
    print(await queue.get())
    await blocked


asyncio.run(main())
