"""Look-alike: a forked worker has a thread with a loop of its own, and waits too short a time for an answer.

class: LOOKALIKE_OWN_LOOP
needs:
"""

import asyncio
import os
import threading


class Background:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine, timeout):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)


background = Background()
os.register_at_fork(after_in_child=lambda: globals().update(background=Background()))


async def work(seconds):
    await asyncio.sleep(seconds)
    return os.getpid()


background.run(work(0), 5)
child = os.fork()
if child == 0:
    print(background.run(work(0), 5) == os.getpid())
    try:
        background.run(work(2), 0.05)
    except TimeoutError:
        print("too slow")
    os._exit(0)
os.waitpid(child, 0)
background.run(work(0), 5)
background.loop.call_soon_threadsafe(background.loop.stop)
