"""For each rule a module that breaks it."""

BAD: dict[str, str] = {
    "HL101": """
import asyncio

import flask
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

app = flask.Flask(__name__)
engine = create_async_engine("postgresql+asyncpg://localhost/app")


async def count():
    async with engine.connect() as connection:
        return (await connection.execute(text("select count(*) from visits"))).scalar_one()


@app.get("/count")
def visits():
    return str(asyncio.run(count()))
""",
    "HL102": """
import asyncio
from functools import lru_cache

import httpx


@lru_cache
def client():
    return httpx.AsyncClient()


async def fetch(url):
    return (await client().get(url)).text


for address in ("http://127.0.0.1/a", "http://127.0.0.1/b"):
    print(asyncio.run(fetch(address)))
""",
    "HL103": """
import asyncio
import threading

import asyncpg

pool = None


async def get_pool():
    global pool
    if pool is None:
        pool = await asyncpg.create_pool("postgresql://localhost/app")
    return pool


async def work(number):
    await (await get_pool()).execute("select $1::int", number)


def job(number):
    asyncio.run(work(number))


for number in range(3):
    threading.Thread(target=job, args=(number,)).start()
""",
    "HL104": """
import asyncio

import redis.asyncio
from celery import Celery

app = Celery("jobs")
client = redis.asyncio.from_url("redis://localhost/0")


async def count(key):
    return await client.incr(key)


@app.task
def visit(key):
    return asyncio.run(count(key))
""",
    "HL105": """
from celery import Celery

app = Celery("jobs")


@app.task
async def greet(name):
    return f"hello {name}"
""",
    "HL106": """
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import StateGraph

builder = StateGraph(dict)


async def answer(question):
    saver = AsyncPostgresSaver.from_conn_string("postgresql://localhost/app")
    graph = builder.compile(checkpointer=saver)
    return await graph.ainvoke(question)
""",
    "HL107": """
import asyncio


async def fetch():
    await asyncio.sleep(1)


async def main():
    loop = asyncio.get_running_loop()
    return asyncio.run_coroutine_threadsafe(fetch(), loop).result()


asyncio.run(main())
""",
    "HL108": """
import asyncio


async def load():
    await asyncio.sleep(1)
    return {"size": 1}


def settings():
    return asyncio.run(load())


async def main():
    return settings()["size"]


asyncio.run(main())
""",
    "HL109": """
import asyncio
from concurrent.futures import ThreadPoolExecutor

limit = asyncio.Semaphore(2)


async def work():
    async with limit:
        await asyncio.sleep(0.1)


def job(number):
    asyncio.run(work())


with ThreadPoolExecutor() as threads:
    list(threads.map(job, range(10)))
""",
    "HL110": """
import aiohttp

session = aiohttp.ClientSession()


async def fetch(url):
    async with session.get(url) as answer:
        return await answer.text()
""",
    "HL111": """
import asyncio
import threading


def produce(queue):
    for number in range(3):
        queue.put_nowait(number)


async def main():
    queue = asyncio.Queue()
    threading.Thread(target=produce, args=(queue,)).start()
    return await queue.get()


asyncio.run(main())
""",
    "HL112": """
import asyncio

from fastapi import FastAPI

app = FastAPI()


async def load():
    return {"size": 1}


@app.get("/size")
def size():
    return asyncio.get_event_loop().run_until_complete(load())
""",
    "HL113": """
import asyncio
import atexit

import httpx

client = httpx.AsyncClient()


@atexit.register
def close():
    asyncio.run(client.aclose())
""",
    "HL114": """
import asyncio

import nest_asyncio

nest_asyncio.apply()


async def load():
    return 1


def value():
    return asyncio.get_event_loop().run_until_complete(load())
""",
    "HL115": """
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import StateGraph

builder = StateGraph(dict)


async def make_graph():
    async with AsyncPostgresSaver.from_conn_string("postgresql://localhost/app") as saver:
        return builder.compile(checkpointer=saver)
""",
    "HL116": """
import asyncio

import asyncpg


async def main():
    pool = await asyncpg.create_pool("postgresql://localhost/app")

    def report():
        return asyncio.run(pool.fetchval("select 1"))

    return await asyncio.to_thread(report)


asyncio.run(main())
""",
    "HL117": """
import asyncpg
import pytest
import pytest_asyncio


@pytest_asyncio.fixture(scope="session")
async def pool():
    async with asyncpg.create_pool("postgresql://localhost/app") as opened:
        yield opened


@pytest.mark.asyncio
async def test_answer(pool):
    assert await pool.fetchval("select 42") == 42
""",
    "HL118": """
import asyncio

import asyncpg
from celery import Celery

app = Celery("jobs")
loop = asyncio.new_event_loop()
pool = loop.run_until_complete(asyncpg.create_pool("postgresql://localhost/app"))


@app.task
def count():
    return loop.run_until_complete(pool.fetchval("select count(*) from visits"))
""",
    "HL119": """
from langgraph.graph import StateGraph

builder = StateGraph(dict)
graph = builder.compile()


async def answer(question):
    return graph.invoke(question)
""",
}
