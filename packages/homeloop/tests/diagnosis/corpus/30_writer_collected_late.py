"""A stream that nobody closed is collected after its loop's end.

class: LATE_CLEANUP
needs:
"""

import asyncio
import gc
import warnings

from _served import URL

warnings.simplefilter("always")


async def connect():
    return await asyncio.open_connection("127.0.0.1", int(URL.rstrip("/").rpartition(":")[2]))


streams = asyncio.run(connect())
del streams
gc.collect()
