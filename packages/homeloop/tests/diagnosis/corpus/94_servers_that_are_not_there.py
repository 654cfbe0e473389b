"""Nothing listens, or who listens hangs up or is slow.

class: LOOKALIKE_NETWORK
needs:
"""

import asyncio
import logging

import aiohttp
import asyncpg
import httpx
import redis.asyncio

log = logging.getLogger("app")


async def main():
    async def hang_up(reader, writer):
        writer.close()

    async def slow(reader, writer):
        await asyncio.sleep(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    slowly = await asyncio.start_server(slow, "127.0.0.1", 0)
    port, slow_port = (each.sockets[0].getsockname()[1] for each in (server, slowly))
    async with (
        httpx.AsyncClient(timeout=0.2) as client,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(0.2)) as session,
    ):
        for what in (
            client.get(f"http://127.0.0.1:{port}/"),
            client.get(f"http://127.0.0.1:{slow_port}/"),
            session.get(f"http://127.0.0.1:{port}/"),
            session.get(f"http://127.0.0.1:{slow_port}/"),
            session.get("http://127.0.0.1:1/"),
            asyncpg.connect("postgresql://127.0.0.1:1/x"),
            asyncpg.connect(f"postgresql://127.0.0.1:{port}/x", timeout=1),
            redis.asyncio.Redis(port=1).ping(),
        ):
            try:
                await what
            except Exception:
                log.exception("not there")
    server.close()
    slowly.close()


asyncio.run(main())
