"""A library's thread resolves a future of the loop.

class: UNSAFE_CROSS_THREAD
needs:
"""

import asyncio
import threading


async def main():
    answer = asyncio.get_running_loop().create_future()
    threading.Timer(0.05, answer.set_result, args=["42"]).start()
    try:
        print(await asyncio.wait_for(answer, 1))
    except TimeoutError:
        print("too late")


asyncio.run(main())
