"""A process that one run started is waited for by the next.

class: REUSE_ACROSS_RUNS
needs:
"""

import asyncio
import sys


async def start():
    return await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(0.5)")


async def finish(process):
    return await asyncio.wait_for(process.wait(), 5)


process = asyncio.run(start())
print(asyncio.run(finish(process)))
