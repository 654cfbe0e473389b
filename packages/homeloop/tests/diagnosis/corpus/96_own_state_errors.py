"""Futures resolved twice, full queues, a lock released twice, a group used late: faults of one loop.

class: LOOKALIKE_STATE
needs:
"""

import asyncio
import logging

log = logging.getLogger("app")


async def main():
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    queue = asyncio.Queue(1)
    queue.put_nowait(1)
    lock = asyncio.Lock()
    group = asyncio.TaskGroup()
    async with group:
        pass

    async def late():
        coroutine = asyncio.sleep(0)
        try:
            group.create_task(coroutine)
        finally:
            coroutine.close()

    task = asyncio.create_task(late())
    for call in (
        lambda: future.set_result(2),
        lambda: queue.put_nowait(2),
        lock.release,
        lambda: future.exception().args,
    ):
        try:
            call()
        except Exception:
            log.exception("ours")
    await asyncio.wait([task])
    await task


asyncio.run(main())
