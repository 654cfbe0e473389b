"""A listener's subscription is used by a thread with a loop of its own.

class: TWO_LIVE_LOOPS
needs: redis
"""

import asyncio
import os
import threading

import redis.asyncio


async def main():
    client = redis.asyncio.from_url(os.environ["WILD_REDIS"])
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("corpus")

        async def listen():
            return await pubsub.get_message(timeout=1)

        await listen()

        class Listener(threading.Thread):
            def run(self):
                asyncio.run(listen())

        thread = Listener()
        thread.start()
        await asyncio.to_thread(thread.join)
        await client.publish("corpus", "x")
        print(await listen())
    await client.aclose()


asyncio.run(main())
