"""A global engine, a session per asyncio.run(), under uvloop.

class: REUSE_ACROSS_RUNS
needs: postgres
"""

import os

import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["WILD_PG"].replace("postgresql://", "postgresql+asyncpg://"))
sessions = async_sessionmaker(engine)


async def job():
    async with sessions() as session:
        return (await session.execute(text("select 42"))).scalar_one()


for _ in range(2):
    print(uvloop.run(job()))
