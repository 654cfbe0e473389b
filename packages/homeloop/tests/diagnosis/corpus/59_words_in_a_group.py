"""The words of a loop fault in a group, with a cause, and logged: they are the program's own.

class: LOOKALIKE_OWN_WORDS
needs:
"""

import asyncio
import logging


class DeviceError(RuntimeError):
    pass


async def read(name):
    try:
        raise OSError(f"{name}: Event loop is closed")
    except OSError as error:
        raise DeviceError("got Future <Future pending> attached to a different loop") from error


async def main():
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(read(name))


try:
    asyncio.run(main())
except* DeviceError as failed:
    logging.getLogger("app").exception("devices", exc_info=failed)
