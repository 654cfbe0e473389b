"""A sync endpoint runs a loop for the pool of the application's lifespan.

class: TWO_LIVE_LOOPS
needs: postgres
"""

import asyncio
import os
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from fastapi.testclient import TestClient


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=2) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


def run_sync(coroutine):
    return asyncio.run(coroutine)


@app.get("/")
def count():
    async def ask():
        async with app.state.pool.acquire() as connection:
            return await connection.fetchval("select 1")

    return run_sync(ask())


with TestClient(app) as client:
    print(client.get("/").text)
