"""The helper that always makes a loop, reached from a coroutine under uvloop.

class: NESTED_RUN
needs:
"""

import asyncio

import uvloop


def wait_for(work):
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def main():
    wait_for(asyncio.sleep(0))


uvloop.run(main())
