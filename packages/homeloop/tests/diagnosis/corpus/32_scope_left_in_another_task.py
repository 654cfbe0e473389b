"""A context manager is entered in one task and left in another.

class: ASYNCGEN_CLEANUP
needs:
"""

import asyncio
from contextlib import asynccontextmanager

import anyio


@asynccontextmanager
async def session():
    with anyio.CancelScope():
        yield


async def main():
    manager = session()
    await asyncio.create_task(manager.__aenter__())
    await asyncio.create_task(manager.__aexit__(None, None, None))


asyncio.run(main())
