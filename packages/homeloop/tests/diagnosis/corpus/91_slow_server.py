"""The server is slow; every way of waiting gives up in time.

class: LOOKALIKE_TIMEOUT
needs: postgres
"""

import asyncio
import logging
import os

import asyncpg
import psycopg

log = logging.getLogger("app")


async def main():
    async with asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1, command_timeout=0.1) as pool:
        for what in (
            pool.fetchval("select pg_sleep(1)"),
            asyncio.wait_for(pool.fetchval("select pg_sleep(1)", timeout=5), 0.1),
        ):
            try:
                await what
            except TimeoutError:
                log.exception("slow")
        async with pool.acquire():
            try:
                await pool.acquire(timeout=0.1)
            except TimeoutError:
                log.exception("no connection")
    async with await psycopg.AsyncConnection.connect(os.environ["WILD_PG"], autocommit=True) as connection:
        await connection.execute("set statement_timeout = 50")
        try:
            await connection.execute("select pg_sleep(1)")
        except psycopg.Error:
            log.exception("cancelled by the server")
        async with asyncio.timeout(0.1):
            await asyncio.sleep(5)


asyncio.run(main())
