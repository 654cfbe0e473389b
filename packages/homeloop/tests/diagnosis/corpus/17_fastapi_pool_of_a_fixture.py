"""A pool of the test's loop, used by the application on the test client's.

class: TEST_LOOP_MISMATCH
needs: postgres
"""

import asyncio
import os

import asyncpg
from fastapi import FastAPI
from fastapi.testclient import TestClient

app = FastAPI()


@app.get("/")
async def root():
    return await app.state.pool.fetchval("select 1")


async def test():
    app.state.pool = await asyncpg.create_pool(os.environ["WILD_PG"], min_size=1, max_size=1)
    await asyncio.to_thread(TestClient(app).get, "/")


asyncio.run(asyncio.wait_for(test(), 10))
