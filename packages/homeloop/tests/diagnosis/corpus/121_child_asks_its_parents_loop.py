"""A module keeps a loop on a thread; a forked worker hands its work to it, and nobody is there to do it.

class: FORK_INHERITED
needs:
"""

import asyncio
import os
import threading

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()


async def work():
    return os.getpid()


def run(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=1)


run(work())
child = os.fork()
if child == 0:
    try:
        run(work())
    except TimeoutError:
        print("no answer")
    os._exit(0)
os.waitpid(child, 0)
loop.call_soon_threadsafe(loop.stop)
