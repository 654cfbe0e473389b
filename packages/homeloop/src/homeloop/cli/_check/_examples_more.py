"""For some rules further modules that break them, with what to write instead: the same fault in other clothes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A module that breaks the rule, and one that does the same and does not; ``title`` says what is different."""

    code: str
    title: str
    bad: str
    good: str


MORE: tuple[Example, ...] = (
    Example(
        "HL101",
        "a class of threads, beside a server's loop",
        """
import asyncio
import threading

import asyncpg
from fastapi import FastAPI

app = FastAPI()
pool = asyncpg.create_pool("postgresql://localhost/app")


class Cleaner(threading.Thread):
    def run(self):
        asyncio.run(self.clean())

    async def clean(self):
        await pool.execute("delete from visits where at < now() - interval '1 day'")


@app.on_event("startup")
async def start():
    await pool
    Cleaner(daemon=True).start()


@app.get("/count")
async def count():
    return await pool.fetchval("select count(*) from visits")
""",
        """
import asyncio
import threading

import asyncpg
from fastapi import FastAPI
from homeloop import LoopLocal

app = FastAPI()
pools = LoopLocal(lambda: asyncpg.create_pool("postgresql://localhost/app"))


class Cleaner(threading.Thread):
    def run(self):
        asyncio.run(self.clean())

    async def clean(self):
        async with pools() as pool:
            await pool.execute("delete from visits where at < now() - interval '1 day'")


@app.on_event("startup")
async def start():
    Cleaner(daemon=True).start()


@app.get("/count")
async def count():
    async with pools() as pool:
        return await pool.fetchval("select count(*) from visits")
""",
    ),
    Example(
        "HL103",
        "an object of a module keeps the client, a runner starts the loops",
        """
import asyncio

import flask
import httpx

app = flask.Flask(__name__)


class Weather:
    def __init__(self):
        self.client = httpx.AsyncClient(base_url="http://127.0.0.1:8000")

    async def at(self, place):
        return (await self.client.get(f"/weather/{place}")).json()


weather = Weather()


@app.get("/weather/<place>")
def show(place):
    with asyncio.Runner() as runner:
        return runner.run(weather.at(place))
""",
        """
import flask
import homeloop
import httpx

app = flask.Flask(__name__)


class Weather:
    def __init__(self):
        self.client = httpx.AsyncClient(base_url="http://127.0.0.1:8000")

    async def at(self, place):
        return (await self.client.get(f"/weather/{place}")).json()


weather = Weather()


@app.get("/weather/<place>")
def show(place):
    return homeloop.run(weather.at, place)
""",
    ),
    Example(
        "HL104",
        "a helper starts the loop",
        """
import asyncio

import asyncpg
from celery import shared_task

pool = asyncpg.create_pool("postgresql://localhost/app")


def run_async(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


async def total(order):
    return await pool.fetchval("select total from orders where id = $1", order)


@shared_task
def order_total(order):
    return run_async(total(order))
""",
        """
import asyncpg
import homeloop
from celery import shared_task
from homeloop import LoopLocal

pools = LoopLocal(lambda: asyncpg.create_pool("postgresql://localhost/app"))


async def total(order):
    async with pools() as pool:
        return await pool.fetchval("select total from orders where id = $1", order)


@shared_task
def order_total(order):
    return homeloop.run(total, order)
""",
    ),
    Example(
        "HL104",
        "a decorator starts the loop",
        """
import asyncio
from functools import wraps

import redis.asyncio
from celery import Celery

app = Celery("jobs")
client = redis.asyncio.from_url("redis://localhost/0")


def synchronous(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        return asyncio.run(function(*args, **kwargs))

    return wrapper


@app.task
@synchronous
async def visit(key):
    return await client.incr(key)
""",
        """
import homeloop
import redis.asyncio
from celery import Celery

app = Celery("jobs")
client = redis.asyncio.from_url("redis://localhost/0")


@app.task
@homeloop.sync
async def visit(key):
    return await client.incr(key)
""",
    ),
    Example(
        "HL104",
        "the class of the task keeps the client",
        """
import asyncio
from functools import cached_property

import httpx
from celery import Celery, Task

app = Celery("jobs")


class HttpTask(Task):
    @cached_property
    def client(self):
        return httpx.AsyncClient()


@app.task(bind=True, base=HttpTask)
def size(self, url):
    async def fetch():
        return len((await self.client.get(url)).content)

    return asyncio.run(fetch())
""",
        """
from functools import cached_property

import homeloop
import httpx
from celery import Celery, Task

app = Celery("jobs")


class HttpTask(Task):
    @cached_property
    def client(self):
        return httpx.AsyncClient()


@app.task(bind=True, base=HttpTask)
def size(self, url):
    async def fetch():
        return len((await self.client.get(url)).content)

    return homeloop.run(fetch)
""",
    ),
    Example(
        "HL104",
        "the class of the task starts the loop",
        """
import asyncio

from celery import Celery, Task
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

app = Celery("jobs")
engine = create_async_engine("postgresql+asyncpg://localhost/app")


class AsyncTask(Task):
    def __call__(self, *args, **kwargs):
        return asyncio.run(self.run(*args, **kwargs))


@app.task(base=AsyncTask)
async def clean():
    async with engine.begin() as connection:
        await connection.execute(text("delete from visits"))
""",
        """
from celery import Celery
from homeloop.adapters.celery import install
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

app = Celery("jobs")
install(app)
engine = create_async_engine("postgresql+asyncpg://localhost/app")


@app.task
async def clean():
    async with engine.begin() as connection:
        await connection.execute(text("delete from visits"))
""",
    ),
    Example(
        "HL116",
        "a class of threads is given the client",
        """
import asyncio
import threading

import aiohttp


class Fetcher(threading.Thread):
    def __init__(self, session, urls):
        super().__init__()
        self.session = session
        self.urls = urls

    def run(self):
        asyncio.run(self.fetch())

    async def fetch(self):
        for url in self.urls:
            await self.session.get(url)


async def main(urls):
    async with aiohttp.ClientSession() as session:
        fetcher = Fetcher(session, urls)
        fetcher.start()
        await asyncio.to_thread(fetcher.join)
""",
        """
import asyncio
import threading

import aiohttp


class Fetcher(threading.Thread):
    def __init__(self, urls):
        super().__init__()
        self.urls = urls

    def run(self):
        asyncio.run(self.fetch())

    async def fetch(self):
        async with aiohttp.ClientSession() as session:
            for url in self.urls:
                await session.get(url)


async def main(urls):
    fetcher = Fetcher(urls)
    fetcher.start()
    await asyncio.to_thread(fetcher.join)
""",
    ),
)
"""In the order of their rules."""
