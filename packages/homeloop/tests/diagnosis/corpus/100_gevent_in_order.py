"""A patched program hands its coroutines to one real thread; one of them fails for a reason of its own.

class: LOOKALIKE_GEVENT
needs:
"""

from gevent import monkey

monkey.patch_all()
import asyncio  # noqa: E402

import gevent  # noqa: E402
from gevent.threadpool import ThreadPool  # noqa: E402


async def work(number):
    await asyncio.sleep(0.05)
    return 1 / number


pool = ThreadPool(1)


def job(number):
    return pool.spawn(lambda: asyncio.run(work(number))).get()


jobs = [gevent.spawn(job, number) for number in (1, 2, 0)]
gevent.joinall(jobs, raise_error=True)
