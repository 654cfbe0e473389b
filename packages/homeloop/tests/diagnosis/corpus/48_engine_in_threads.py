"""Threads of a pool, each with asyncio.run, share a module's engine.

class: TWO_LIVE_LOOPS
needs: postgres
"""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["WILD_PG"].replace("postgresql://", "postgresql+asyncpg://"), pool_size=1)
opened, asked = threading.Barrier(2), threading.Barrier(2)


async def first():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
    await asyncio.to_thread(opened.wait, 10)
    await asyncio.to_thread(asked.wait, 10)


async def second():
    await asyncio.to_thread(opened.wait, 10)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
    finally:
        await asyncio.to_thread(asked.wait, 10)


with ThreadPoolExecutor(2) as threads:
    for work in [threads.submit(asyncio.run, first()), threads.submit(asyncio.run, second())]:
        try:
            work.result()
        except Exception as error:
            print(type(error), error)
