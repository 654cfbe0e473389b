"""A worker thread asks uvloop's policy for a loop.

class: NO_CURRENT_LOOP
needs:
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvloop

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def job():
    return asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 42))


with ThreadPoolExecutor(1) as threads:
    print(threads.submit(job).result())
