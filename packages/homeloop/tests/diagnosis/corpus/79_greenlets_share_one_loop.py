"""Greenlets that ask one kept loop at the same time.

class: GREENLET_LOOP_COLLISION
needs:
"""

from gevent import monkey

monkey.patch_all()
import asyncio  # noqa: E402

import gevent  # noqa: E402

loop = asyncio.new_event_loop()


def job():
    return loop.run_until_complete(asyncio.sleep(0.2))


gevent.joinall([gevent.spawn(job), gevent.spawn(job)], raise_error=True)
