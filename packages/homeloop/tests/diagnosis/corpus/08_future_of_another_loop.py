"""An approval that the web loop holds is awaited on a worker's loop.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio
import threading


async def wait_for(approval):
    return await approval


async def main():
    approval = asyncio.get_running_loop().create_future()
    thread = threading.Thread(target=lambda: asyncio.run(wait_for(approval)))
    thread.start()
    await asyncio.to_thread(thread.join)


asyncio.run(main())
