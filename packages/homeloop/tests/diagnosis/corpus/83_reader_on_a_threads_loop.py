"""A thread's loop reads from the stream of the main one.

class: TWO_LIVE_LOOPS
needs:
"""

import asyncio


async def main():
    async def answer(reader, writer):
        await asyncio.sleep(0.5)
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    async def read():
        return await asyncio.wait_for(reader.readline(), 2)

    try:
        print(await asyncio.to_thread(lambda: asyncio.run(read())))
    finally:
        writer.close()
        server.close()


asyncio.run(main())
