"""For each rule a module that does not break it, and does the same as the one that does."""

GOOD: dict[str, str] = {
    "HL101": """
import flask
import homeloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

app = flask.Flask(__name__)
engine = create_async_engine("postgresql+asyncpg://localhost/app")


async def count():
    async with engine.connect() as connection:
        return (await connection.execute(text("select count(*) from visits"))).scalar_one()


@app.get("/count")
def visits():
    return str(homeloop.run(count))
""",
    "HL102": """
import asyncio

import httpx
from homeloop import LoopLocal

client = LoopLocal(httpx.AsyncClient)


async def fetch(url):
    return (await (await client.get()).get(url)).text


for address in ("http://127.0.0.1/a", "http://127.0.0.1/b"):
    print(asyncio.run(fetch(address)))
""",
    "HL103": """
import asyncio
import threading

import asyncpg
from homeloop import LoopLocal

pool = LoopLocal(lambda: asyncpg.create_pool("postgresql://localhost/app"))


async def work(number):
    await (await pool.get()).execute("select $1::int", number)


def job(number):
    asyncio.run(work(number))


for number in range(3):
    threading.Thread(target=job, args=(number,)).start()
""",
    "HL104": """
import homeloop
import redis.asyncio
from celery import Celery

app = Celery("jobs")
client = redis.asyncio.from_url("redis://localhost/0")


async def count(key):
    return await client.incr(key)


@app.task
def visit(key):
    return homeloop.run(count, key)
""",
    "HL105": """
from celery import Celery
from homeloop.adapters.celery import install

app = Celery("jobs")
install(app)


@app.task
async def greet(name):
    return f"hello {name}"
""",
    "HL106": """
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import StateGraph

builder = StateGraph(dict)


async def answer(question):
    async with AsyncPostgresSaver.from_conn_string("postgresql://localhost/app") as saver:
        graph = builder.compile(checkpointer=saver)
        return await graph.ainvoke(question)
""",
    "HL107": """
import asyncio


async def fetch():
    await asyncio.sleep(1)


def on_a_thread(loop):
    return asyncio.run_coroutine_threadsafe(fetch(), loop).result()


async def main():
    return await asyncio.to_thread(on_a_thread, asyncio.get_running_loop())


asyncio.run(main())
""",
    "HL108": """
import asyncio


async def load():
    await asyncio.sleep(1)
    return {"size": 1}


async def main():
    return (await load())["size"]


asyncio.run(main())
""",
    "HL109": """
import asyncio
from concurrent.futures import ThreadPoolExecutor

import homeloop

limit = asyncio.Semaphore(2)


async def work():
    async with limit:
        await asyncio.sleep(0.1)


def job(number):
    homeloop.run(work)


with ThreadPoolExecutor() as threads:
    list(threads.map(job, range(10)))
""",
    "HL110": """
import aiohttp
from homeloop import LoopLocal

sessions = LoopLocal(aiohttp.ClientSession)


async def fetch(url):
    async with (await sessions.get()).get(url) as answer:
        return await answer.text()
""",
    "HL111": """
import asyncio
import threading


def produce(loop, queue):
    for number in range(3):
        loop.call_soon_threadsafe(queue.put_nowait, number)


async def main():
    queue = asyncio.Queue()
    threading.Thread(target=produce, args=(asyncio.get_running_loop(), queue)).start()
    return await queue.get()


asyncio.run(main())
""",
    "HL112": """
from fastapi import FastAPI

app = FastAPI()


async def load():
    return {"size": 1}


@app.get("/size")
async def size():
    return await load()
""",
    "HL113": """
import httpx
from homeloop import LoopLocal

client = LoopLocal(httpx.AsyncClient)
""",
    "HL114": """
import homeloop


async def load():
    return 1


def value():
    return homeloop.run(load)
""",
    "HL115": """
from contextlib import asynccontextmanager

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import StateGraph

builder = StateGraph(dict)


@asynccontextmanager
async def open_graph():
    async with AsyncPostgresSaver.from_conn_string("postgresql://localhost/app") as saver:
        yield builder.compile(checkpointer=saver)
""",
    "HL116": """
import asyncio

import asyncpg


async def main():
    pool = await asyncpg.create_pool("postgresql://localhost/app")
    loop = asyncio.get_running_loop()

    def report():
        return asyncio.run_coroutine_threadsafe(ask(), loop).result()

    async def ask():
        return await pool.fetchval("select 1")

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


@pytest.mark.asyncio(loop_scope="session")
async def test_answer(pool):
    assert await pool.fetchval("select 42") == 42
""",
    "HL118": """
import asyncpg
import homeloop
from celery import Celery

app = Celery("jobs")
pool = homeloop.LoopLocal(lambda: asyncpg.create_pool("postgresql://localhost/app"))


async def visits():
    return await (await pool.get()).fetchval("select count(*) from visits")


@app.task
def count():
    return homeloop.run(visits)
""",
    "HL119": """
from langgraph.graph import StateGraph

builder = StateGraph(dict)
graph = builder.compile()


async def answer(question):
    return await graph.ainvoke(question)
""",
}
