"""A psycopg connection is kept, and several tasks wait for its lock, in every run.

class: PRIMITIVE_REBIND
needs: postgres
"""

import asyncio
import os

import psycopg

kept = []


async def ask():
    cursor = await kept[0].execute("select pg_sleep(0.05)")
    return await cursor.fetchone()


async def main():
    if not kept:
        kept.append(await psycopg.AsyncConnection.connect(os.environ["WILD_PG"]))
    await asyncio.gather(ask(), ask())


asyncio.run(main())
asyncio.run(main())
