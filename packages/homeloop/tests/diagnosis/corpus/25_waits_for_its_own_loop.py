"""A sync function on the loop's thread waits for that loop.

class: SYNC_BRIDGE_DEADLOCK
needs:
"""

import asyncio


async def ask():
    return 42


def tool(loop):
    return asyncio.run_coroutine_threadsafe(ask(), loop).result(timeout=0.5)


async def main():
    return tool(asyncio.get_running_loop())


asyncio.run(main())
