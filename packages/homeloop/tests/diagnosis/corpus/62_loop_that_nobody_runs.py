"""Work is handed to a loop that was made and never started.

class: SYNC_BRIDGE_DEADLOCK
needs:
"""

import asyncio

loop = asyncio.new_event_loop()


async def work():
    return 42


future = asyncio.run_coroutine_threadsafe(work(), loop)
try:
    print(future.result(timeout=0.5))
except TimeoutError:
    print("no answer")
loop.run_until_complete(asyncio.sleep(0))
loop.close()
