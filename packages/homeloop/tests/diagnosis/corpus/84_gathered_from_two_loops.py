"""A future of a thread's loop is gathered with one of the main one.

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


async def main():
    theirs = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(start(), loop))
    await asyncio.gather(asyncio.ensure_future(asyncio.sleep(0.1)), theirs)


try:
    asyncio.run(main())
finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
