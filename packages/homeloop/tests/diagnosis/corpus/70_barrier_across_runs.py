"""A barrier of a module, met in two runs.

class: PRIMITIVE_REBIND
needs:
"""

import asyncio

barrier = asyncio.Barrier(2)


async def meet():
    await barrier.wait()


async def main():
    await asyncio.wait_for(asyncio.gather(meet(), meet()), 5)


asyncio.run(main())
asyncio.run(main())
