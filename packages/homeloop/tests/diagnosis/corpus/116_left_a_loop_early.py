"""An async for is left early; its generator is ended with the run, and wanted no more.

class: LOOKALIKE_BREAK
needs:
"""

import asyncio


async def rows():
    try:
        for number in range(10):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)


async def main():
    async for number in rows():
        if number == 3:
            break
    generator = rows()
    print(await anext(generator))
    raise LookupError("no such row")


for _ in range(2):
    try:
        asyncio.run(main())
    except LookupError as error:
        print(repr(error))
