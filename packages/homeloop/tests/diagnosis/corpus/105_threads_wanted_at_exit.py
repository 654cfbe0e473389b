"""An exit hook starts a loop that needs a thread, which the interpreter gives no more.

class: INTERPRETER_SHUTDOWN
needs:
"""

import asyncio
import atexit


def flush():
    pass


async def close():
    await asyncio.to_thread(flush)


atexit.register(lambda: asyncio.run(close()))
asyncio.run(close())
