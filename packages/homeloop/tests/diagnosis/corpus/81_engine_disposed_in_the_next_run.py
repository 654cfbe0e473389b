"""An engine is disposed of in a run of its own.

class: CLEANUP_IN_OTHER_LOOP
needs: postgres
"""

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["WILD_PG"].replace("postgresql://", "postgresql+asyncpg://"))


async def work():
    async with engine.connect() as connection:
        return (await connection.execute(text("select 1"))).scalar_one()


async def close():
    await engine.dispose()


print(asyncio.run(work()))
asyncio.run(close())
