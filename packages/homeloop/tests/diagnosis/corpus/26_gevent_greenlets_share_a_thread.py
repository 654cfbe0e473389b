"""Two greenlets of one thread start a loop each.

class: GREENLET_LOOP_COLLISION
needs:
"""

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402

import gevent  # noqa: E402


def job():
    return asyncio.run(asyncio.sleep(0.2))


gevent.joinall([gevent.spawn(job), gevent.spawn(job)])
