"""A coroutine that is driven by hand asks for a time-out.

class: NO_CURRENT_TASK
needs:
"""

import asyncio


async def work():
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: ended.set_exception(context["exception"]))
    ended = loop.create_future()
    loop.call_soon(lambda: work().send(None))
    await ended


asyncio.run(main())
