"""An object keeps the loop that it was started on, and asks it for work after its end.

class: LOOP_CAPTURED
needs:
"""

import asyncio


class Scheduler:
    async def start(self):
        self.loop = asyncio.get_running_loop()

    def add(self, fn):
        asyncio.run_coroutine_threadsafe(fn(), self.loop)


async def job():
    print("done")


scheduler = Scheduler()
asyncio.run(scheduler.start())
scheduler.add(job)
