"""get_event_loop() on a worker thread.

class: NO_CURRENT_LOOP
needs:
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor


def job():
    return asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))


with ThreadPoolExecutor() as pool:
    pool.submit(job).result()
