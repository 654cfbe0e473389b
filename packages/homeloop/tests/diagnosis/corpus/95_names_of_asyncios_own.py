"""A program whose classes and functions are called like asyncio's.

class: LOOKALIKE_NAMES
needs:
"""

import asyncio
import logging

log = logging.getLogger("app")


class BaseEventLoop:
    def _check_closed(self):
        raise RuntimeError("Event loop is closed")

    def _check_running(self):
        raise RuntimeError("This event loop is already running")

    def run(self, coroutine):
        coroutine.close()
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")

    def get_event_loop(self):
        raise RuntimeError("There is no current event loop in thread 'MainThread'.")

    async def _get_loop(self):
        raise RuntimeError(f"{self!r} is bound to a different event loop")


async def main():
    loop = BaseEventLoop()
    for call in (loop._check_closed, loop._check_running, lambda: loop.run(asyncio.sleep(0)), loop.get_event_loop):
        try:
            call()
        except RuntimeError:
            log.exception("ours")
    await loop._get_loop()


asyncio.run(main())
