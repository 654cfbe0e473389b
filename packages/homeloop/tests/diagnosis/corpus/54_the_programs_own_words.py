"""Look-alike: an application raises, and logs, errors with a loop's words.

class: LOOKALIKE_USER_WORDS
needs:
"""

import asyncio
import logging
import threading


class BoardError(RuntimeError):
    pass


def check(closed):
    if closed:
        raise RuntimeError("Event loop is closed")


async def use(track):
    if track == 1:
        raise RuntimeError("Task <Task> got Future <Future pending> attached to a different loop")
    await asyncio.to_thread(check, True)


async def main():
    for track in (1, 2):
        try:
            await use(track)
        except RuntimeError:
            logging.getLogger("app").exception("track %s", track)
    raise BoardError("<Lock> is bound to a different event loop")


thread = threading.Thread(target=check, args=(True,))
thread.start()
thread.join()
asyncio.run(main())
