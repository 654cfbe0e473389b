"""anyio's stream in memory, received on one loop and sent on another.

class: TWO_LIVE_LOOPS
needs:
"""

import threading

import anyio


async def main():
    sending, receiving = anyio.create_memory_object_stream(0)

    async def send():
        await sending.send("hello")

    async with sending, receiving, anyio.create_task_group() as group:

        async def receive():
            with anyio.move_on_after(2):
                print(await receiving.receive())

        group.start_soon(receive)
        await anyio.sleep(0.1)
        thread = threading.Thread(target=lambda: anyio.run(send))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)


anyio.run(main)
