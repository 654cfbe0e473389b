"""A condition that all objects of a class share, waited for in two runs.

class: PRIMITIVE_REBIND
needs:
"""

import asyncio


class Stock:
    changed = asyncio.Condition()

    async def wait(self):
        async with self.changed:
            await asyncio.wait_for(self.changed.wait(), 0.05)


for _ in range(2):
    try:
        asyncio.run(Stock().wait())
    except TimeoutError:
        print("nothing changed")
