"""Two threads' loops share one psycopg engine of SQLAlchemy, with one connection.

class: TWO_LIVE_LOOPS
needs: postgres
"""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(
    os.environ["WILD_PG"].replace("postgresql://", "postgresql+psycopg://"),
    pool_size=1,
    max_overflow=0,
    pool_timeout=5,
)


async def ask():
    for _ in range(5):
        async with engine.connect() as connection:
            await connection.execute(text("select pg_sleep(0.05)"))


with ThreadPoolExecutor(2) as threads:
    for future in [threads.submit(lambda: asyncio.run(ask())) for _ in range(2)]:
        try:
            future.result(timeout=20)
        except Exception:
            logging.getLogger("jobs").exception("job")
