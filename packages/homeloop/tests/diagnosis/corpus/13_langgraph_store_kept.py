"""A store that takes its loop in the constructor is used by the next run.

class: LOOP_CAPTURED
needs:
"""

import asyncio
import os
import traceback

import aiosqlite
from langgraph.store.sqlite.aio import AsyncSqliteStore


async def open_store():
    store = AsyncSqliteStore(await aiosqlite.connect(":memory:", isolation_level=None))
    await store.setup()
    return store


async def put(store):
    await store.aput(("notes",), "first", {"text": "hello"})


try:
    kept = asyncio.run(open_store())
    asyncio.run(put(kept))
except RuntimeError:
    traceback.print_exc()
finally:
    os._exit(1)  # the database's thread would keep the process
