"""A service takes a while to clean up after it was cancelled, and the program waits for it.

class: LOOKALIKE_SLOW
needs:
"""

import asyncio


async def serve():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(1)


async def main():
    task = asyncio.create_task(serve())
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("stopped")


asyncio.run(main())
