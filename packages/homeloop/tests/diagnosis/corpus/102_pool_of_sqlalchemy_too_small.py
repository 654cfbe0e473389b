"""An engine's pool is too small, and a session is used by two tasks.

class: LOOKALIKE_POOL
needs: postgres
"""

import asyncio
import logging
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

log = logging.getLogger("app")


async def main():
    engine = create_async_engine(
        os.environ["WILD_PG"].replace("postgresql://", "postgresql+asyncpg://"),
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.2,
    )
    async with engine.connect():
        try:
            await engine.connect()
        except Exception:
            log.exception("full")
    async with AsyncSession(engine) as session:
        done = await asyncio.gather(
            *(session.execute(text("select pg_sleep(0.05)")) for _ in range(3)), return_exceptions=True
        )
    await engine.dispose()
    for each in done:
        if isinstance(each, Exception):
            raise each


asyncio.run(main())
