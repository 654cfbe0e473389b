"""The server closes a connection: nobody's loop is to blame.

class: LOOKALIKE_SERVER_CLOSED
needs: postgres
"""

import asyncio
import os

import asyncpg


async def main():
    one, other = await asyncpg.connect(os.environ["WILD_PG"]), await asyncpg.connect(os.environ["WILD_PG"])
    try:
        await other.execute("select pg_terminate_backend($1)", one.get_server_pid())
        print(await one.fetchval("select 1"))
    finally:
        await other.close()


asyncio.run(main())
