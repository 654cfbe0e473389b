"""Tasks for the soak: what an application does in its tasks, and what goes wrong there."""

import asyncio
import os

import asyncpg
import httpx
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

import homeloop
from homeloop import LoopLocal
from homeloop.adapters.celery import install
from homeloop.http import loop_local_client

app = Celery("soak", broker=os.environ["SOAK_REDIS"], backend=os.environ["SOAK_REDIS"])
app.conf.update(
    broker_transport_options={"global_keyprefix": os.environ["SOAK_PREFIX"]},
    result_backend_transport_options={"global_keyprefix": os.environ["SOAK_PREFIX"]},
    control_exchange=os.environ["SOAK_PREFIX"].rstrip(":"),
    broker_connection_retry_on_startup=True,
    result_expires=600,
    worker_prefetch_multiplier=1,
)
pools = LoopLocal(lambda: asyncpg.create_pool(os.environ["SOAK_DSN"], min_size=0, max_size=4))
clients = loop_local_client(lambda tls: httpx.AsyncClient(verify=tls, timeout=30))
install(app, warm_up=[pools.get])


class OnPurposeError(Exception):
    """What the failing task fails with."""


@app.task
async def query(number: int) -> int:
    async with pools() as pool, pool.acquire() as connection, connection.transaction():
        return await connection.fetchval("select $1::int from pg_sleep(0.005)", number)


@app.task
async def fetch(number: int) -> int:
    async with clients() as client:
        answer = await client.get(f"{os.environ['SOAK_HTTP']}/{number}")
    return int(answer.text)


@app.task
async def nap(number: int) -> int:
    await asyncio.sleep(0.05)
    return number


@app.task
def sync(number: int) -> int:
    """A sync task that reaches the same pool."""
    return homeloop.run(_query, number, timeout=30)


async def _query(number: int) -> int:
    async with pools() as pool:
        return await pool.fetchval("select $1::int", number)


@app.task(bind=True, max_retries=3)
async def retried(self, number: int) -> int:  # type: ignore[no-untyped-def]
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)  # at 0 Celery's "RETRY" may overwrite the success that follows it
    return number


@app.task
async def fails(number: int) -> None:
    await asyncio.sleep(0)
    raise OnPurposeError(number)


@app.task(soft_time_limit=0.5)
async def limited(number: int) -> int:
    try:
        async with pools() as pool:
            await pool.execute("select pg_sleep(60)")
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0)
    return number


@app.task(time_limit=1)
async def cut(number: int) -> None:
    async with clients() as client:
        await client.get(f"{os.environ['SOAK_HTTP']}/never")


@app.task
async def held(number: int) -> None:
    """Waits, with a connection, to be revoked."""
    async with pools() as pool:
        await pool.execute("select pg_sleep(60)")
