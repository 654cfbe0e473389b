"""A generator that one run began is ended with it; the next run gets less, and no error.

class: ASYNCGEN_CLEANUP
needs:
"""

import asyncio


async def rows():
    for number in range(10):
        await asyncio.sleep(0)
        yield number


generator = rows()


async def some():
    got = []
    async for number in generator:
        got.append(number)
        if len(got) == 3:
            break
    return got


print(asyncio.run(some()))
print(asyncio.run(some()))
