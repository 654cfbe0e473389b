"""Look-alike: work is brought to another loop as it should be, and fails there by itself.

class: LOOKALIKE_HAND_OVER
needs:
"""

import asyncio
import json
import threading

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()


class Client:
    def __init__(self):
        self._loop = loop
        self.lock = asyncio.Lock()

    async def parse(self, text):
        async with self.lock:
            await asyncio.sleep(0)
            return json.loads(text)


async def main():
    client = Client()
    calls = [asyncio.run_coroutine_threadsafe(client.parse(text), loop) for text in ("1", "2", "{")]
    return await asyncio.gather(*map(asyncio.wrap_future, calls))


asyncio.run(main())
