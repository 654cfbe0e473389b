"""The ways a sync function asks the service in async code: ``WAY`` names one, ``SERVICE`` is the service's URL."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable

import httpx

URL = os.environ["SERVICE"]

Ask = Callable[[], str]


async def get(client: httpx.AsyncClient) -> str:
    """The work."""
    return (await client.get(URL)).text


async def get_once() -> str:
    """The work with a client of its own."""
    async with httpx.AsyncClient() as client:
        return await get(client)


def client_per_call() -> Ask:
    """What the documents did."""
    return lambda: asyncio.run(get_once())


def kept_client() -> Ask:
    """What fails: a client that outlives the loops."""
    client = httpx.AsyncClient()
    return lambda: asyncio.run(get(client))


def nested() -> Ask:
    """asyncio patched, so that a loop may be run inside itself; the client is kept, where a loop runs already."""
    import nest_asyncio2

    nest_asyncio2.apply()
    client = httpx.AsyncClient()
    return lambda: asyncio.get_event_loop().run_until_complete(get(client))


def asgiref_per_call() -> Ask:
    """Django's bridge; a loop per call, so a client per call."""
    from asgiref.sync import async_to_sync

    return async_to_sync(get_once)


def anyio_of_the_server() -> Ask:
    """Back to the loop that sent the endpoint to a thread, FastAPI's own way; in no other thread."""
    from anyio import from_thread

    client = httpx.AsyncClient()
    return lambda: from_thread.run(get, client)


def anyio_portal() -> Ask:
    """A kept loop thread of anyio's, and a client on it."""
    from anyio.from_thread import start_blocking_portal

    opening = start_blocking_portal()
    portal = opening.__enter__()
    atexit.register(
        opening.__exit__, None, None, None
    )  # which keeps it, too: the portal ends with the last reference
    client = httpx.AsyncClient()
    return lambda: portal.call(get, client)


def by_hand() -> Ask:
    """A loop on a thread, a client on the loop: what people write who know."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    client = httpx.AsyncClient()
    return lambda: asyncio.run_coroutine_threadsafe(get(client), loop).result()


def with_homeloop() -> Ask:
    """AsyncExecutor, and a client of the loop's own."""
    from homeloop import LoopLocal
    from homeloop.serving import AsyncExecutor

    clients = LoopLocal(httpx.AsyncClient)

    async def get_leased() -> str:
        async with clients() as client:
            return await get(client)

    return lambda: AsyncExecutor.run_async(get_leased)


WAYS: dict[str, Callable[[], Ask]] = {
    "client per call, asyncio.run": client_per_call,
    "client kept, asyncio.run": kept_client,
    "nest_asyncio, in an async endpoint": nested,
    "asgiref async_to_sync, client per call": asgiref_per_call,
    "anyio from_thread, the server's loop": anyio_of_the_server,
    "anyio portal, kept": anyio_portal,
    "loop thread and client by hand": by_hand,
    "homeloop AsyncExecutor": with_homeloop,
}
NAME = os.environ["WAY"]
ask = WAYS[NAME]()
