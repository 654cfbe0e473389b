"""aiosqlite's connection may be used by one loop after the other.

class: LOOKALIKE_WORKS
needs:
"""

import asyncio
import tempfile

import aiosqlite

kept = []


async def main(statement):
    if not kept:
        kept.append(await aiosqlite.connect(tempfile.mkdtemp() + "/kept.db"))
    async with kept[0].execute(statement) as cursor:
        return await cursor.fetchone()


print(asyncio.run(main("select 1")))
try:
    print(asyncio.run(main("select 1")))
    asyncio.run(main("select nonsense"))
finally:
    asyncio.run(kept[0].close())
