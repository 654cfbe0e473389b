"""A thread's timer starts a coroutine without a loop.

class: NO_CURRENT_LOOP
needs:
"""

import asyncio
import threading


async def refresh():
    pass


def tick():
    return asyncio.ensure_future(refresh())


timer = threading.Timer(0.01, tick)
timer.start()
timer.join()
