"""A FastAPI application whose endpoints call a service in every way there is."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request

import homeloop
from homeloop import LoopLocal
from homeloop.adapters.fastapi import lease, lease_at_home, lifespan
from homeloop.serving import AsyncExecutor

clients = LoopLocal(lambda: httpx.AsyncClient(base_url=os.environ["SITE"]), name="clients")
Client = Annotated[httpx.AsyncClient, Depends(lease(clients))]
ClientAtHome = Annotated[httpx.AsyncClient, Depends(lease_at_home(clients))]


@asynccontextmanager
async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    """The application's own lifespan: clients are warm in it, and the runtime still runs at its end."""
    opened = clients.statistics().opened
    yield {"greeting": f"{opened} warm"}
    assert await homeloop.arun(ask) == "ok"


app = FastAPI(
    lifespan=lifespan(warm_up=[clients.warm], warm_up_at_home=[clients.warm], inner=own),
)


async def ask() -> str:
    """Call the service with the running loop's client."""
    async with clients() as client:
        return str((await client.get("/")).json())


@app.get("/async")
async def with_lease(client: Client) -> str:
    return str((await client.get("/")).json())


@app.get("/sync")
def with_lease_at_home(client: ClientAtHome) -> str:
    return str(homeloop.run(client.get, "/").json())


@app.get("/executor-in-sync")
def executor_in_sync() -> str:
    return AsyncExecutor.run_async(ask)


@app.get("/executor-in-async")
async def executor_in_async() -> str:
    return AsyncExecutor.run_async(ask)


@app.get("/to-thread")
async def executor_in_to_thread() -> str:
    return await asyncio.to_thread(AsyncExecutor.run_async, ask)


@app.get("/arun")
async def hop() -> str:
    return await homeloop.arun(ask)


@app.get("/batch")
def batch() -> list[str]:
    async def one(_: int) -> str:
        return await ask()

    return AsyncExecutor.map_async(one, range(100), concurrency=10)


@app.get("/state")
async def state(request: Request) -> str:
    return str(request.state.greeting)


@app.get("/background")
async def background() -> str:
    """Leave work on the runtime's loop that only the drain ends."""
    homeloop.submit(_until_cancelled)
    return "ok"


async def _until_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        assert await ask() == "ok"
        print("background work has cleaned up", flush=True)
