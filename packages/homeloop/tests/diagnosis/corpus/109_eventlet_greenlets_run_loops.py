"""Two green threads of eventlet start a loop each.

class: GREENLET_LOOP_COLLISION
needs:
"""

import eventlet

eventlet.monkey_patch()
import asyncio  # noqa: E402


def job():
    return asyncio.run(asyncio.sleep(0.2))


threads = [eventlet.spawn(job) for _ in range(2)]
for thread in threads:
    thread.wait()
