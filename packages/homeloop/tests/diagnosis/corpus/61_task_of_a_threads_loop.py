"""A task of a thread's loop is awaited on the main one; that loop is closed before anybody looks.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio
import threading

loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()


async def start():
    return asyncio.ensure_future(asyncio.sleep(0.2))


async def main(task):
    return await asyncio.wait_for(task, 1)


try:
    asyncio.run(main(asyncio.run_coroutine_threadsafe(start(), loop).result()))
finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
