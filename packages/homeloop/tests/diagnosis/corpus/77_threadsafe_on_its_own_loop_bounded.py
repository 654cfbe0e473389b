"""A sync helper waits, for a while, for the loop that it runs on.

class: SYNC_BRIDGE_DEADLOCK
needs:
"""

import asyncio


async def load():
    return 1


def helper(loop):
    return asyncio.run_coroutine_threadsafe(load(), loop).result(timeout=1)


async def main():
    try:
        return helper(asyncio.get_running_loop())
    except TimeoutError as error:
        raise LookupError("no answer") from error


asyncio.run(main())
