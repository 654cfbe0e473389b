"""A child process asks the pool that its parent opened.

class: FORK_INHERITED
needs: postgres
"""

import asyncio
import os
import traceback

import asyncpg

loop = asyncio.new_event_loop()


async def open_pool():
    return await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)


async def ask():
    for number in range(200):
        assert await asyncio.wait_for(pool.fetchval("select $1::int", number), 2) == number


pool = loop.run_until_complete(open_pool())
children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        try:
            loop.run_until_complete(ask())
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
