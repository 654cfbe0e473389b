"""Failures that people have, and their twins: what fails with a kept resource works through LoopLocal."""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

import pytest

Script = Callable[..., "CompletedProcess[str]"]

PRELUDE = """
    import asyncio, inspect, os
    from homeloop import LoopLocal

    URL = os.environ["URL"]
    DSN, REDIS, FILE = (os.environ.get(name, "") for name in ("DSN", "REDIS", "FILE"))
"""

KEPT = """
    kept = manager = None

    async def task():
        global kept, manager
        if kept is None:
            kept = manager = make()
            if inspect.isawaitable(kept):
                kept = await kept
            elif hasattr(kept, "__aenter__") and not isinstance(kept, asyncio.Lock):
                kept = await kept.__aenter__()
        await use(kept)
"""

LOCAL = """
    local = LoopLocal(make)

    async def task():
        async with local() as resource:
            await use(resource)
"""

LATER_LOOPS = """
    for _ in range(4):
        asyncio.run(asyncio.wait_for(task(), 3))
"""

TWO_LOOPS = """
    async def tasks():
        await asyncio.gather(*(task() for _ in range(4)))

    async def main():
        await task()
        for _ in range(int(os.environ["ROUNDS"])):
            await asyncio.gather(asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(tasks(), 3))), tasks())

    asyncio.run(asyncio.wait_for(main(), 4), debug=False)
"""

AT_EXIT = """
    import atexit

    asyncio.run(task())
    if "kept" in globals():
        atexit.register(lambda: asyncio.run(kept.aclose()))
"""

NEW_LOOP = """
    loop = asyncio.new_event_loop()
    if "kept" in globals():
        kept = loop.run_until_complete(make())
    loop.run_until_complete(task())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
"""

PLAIN_LOOP = """
    import gc

    loop = asyncio.new_event_loop()
    loop.run_until_complete(task())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    kept = loop = None
    gc.collect()
"""

CLOSED_LATER = """
    async def close():
        await (kept.aclose if hasattr(kept, "aclose") else kept.close)()

    asyncio.run(task())
    if "kept" in globals():
        asyncio.run(asyncio.wait_for(close(), 5))
"""

AT_IMPORT = """
    if "kept" in globals():
        kept = make()
    asyncio.run(task())
"""

CALLBACK = """
    async def main():
        await task()
        await asyncio.gather(asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(task(), 3))), task())

    asyncio.run(asyncio.wait_for(main(), 4), debug=False)
"""

TEST_CLIENT = """
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()

    @app.get("/")
    async def root() -> int:
        await task()
        return 1

    async def test():
        await task()
        assert (await asyncio.to_thread(lambda: TestClient(app).get("/"))).json() == 1

    asyncio.run(asyncio.wait_for(test(), 5), debug=False)
"""

SYNC_ENDPOINT = """
    from contextlib import asynccontextmanager
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    @asynccontextmanager
    async def lifespan(app):
        await task()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    def root() -> int:
        asyncio.run(asyncio.wait_for(task(), 3))
        return 1

    with TestClient(app) as client:
        assert client.get("/").json() == 1
"""

RESOURCES = {
    "asyncpg": """
        import asyncpg

        def make():
            return asyncpg.create_pool(DSN, min_size=1, max_size=2)

        async def use(pool):
            assert await pool.fetchval("select 1") == 1
    """,
    "asyncpg connection": """
        import asyncpg

        def make():
            return asyncpg.connect(DSN)

        async def use(connection):
            assert await connection.fetchval("select 1 from pg_sleep(0.1)") == 1
    """,
    "session": """
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

        def make_engine():
            return create_async_engine(DSN.replace("postgresql:", "postgresql+asyncpg:"))

        engines = LoopLocal(make_engine, close=AsyncEngine.dispose)
        engine = None

        async def make():
            global engine
            engine = await engines.get() if "local" in globals() else make_engine()
            return AsyncSession(engine)

        async def use(session):
            await session.execute(text("select 1"))
    """,
    "stream": """
        from urllib.parse import urlsplit

        def make():
            return asyncio.open_connection(urlsplit(URL).hostname, urlsplit(URL).port)

        async def use(stream):
            reader, writer = stream
            writer.write(b"GET /hello HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")

        async def close(stream):
            stream[1].close()
            await stream[1].wait_closed()

        LoopLocal = lambda make, LoopLocal=LoopLocal: LoopLocal(make, close=close)
    """,
    "openai": """
        from openai import AsyncOpenAI

        def make():
            return AsyncOpenAI(api_key="none", base_url=URL + "/v1", max_retries=0)

        async def use(client):
            asked = [{"role": "user", "content": "Hello?"}]
            answer = await client.chat.completions.create(model="any", messages=asked)
            assert answer.choices[0].message.content == "hello"
    """,
    "psycopg_pool": """
        import psycopg_pool

        def make():
            return psycopg_pool.AsyncConnectionPool(DSN, min_size=1, max_size=1, open=False)

        async def use(pool):
            try:
                async with pool.connection(timeout=1) as connection:
                    await connection.execute("select pg_terminate_backend(pg_backend_pid())")
            except psycopg_pool.PoolTimeout:
                raise
            except Exception:
                pass  # the server was restarted, say
            async with pool.connection(timeout=1) as connection:
                await connection.execute("select 1")
    """,
    "sqlalchemy": """
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

        def make():
            return create_async_engine(DSN.replace("postgresql:", "postgresql+asyncpg:"))

        async def use(engine):
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))

        LoopLocal = lambda make, LoopLocal=LoopLocal: LoopLocal(make, close=AsyncEngine.dispose)
    """,
    "redis": """
        import redis.asyncio

        def make():
            return redis.asyncio.from_url(REDIS)

        async def use(client):
            assert await client.echo("1") == b"1"
            assert await client.blpop("homeloop-test-nothing", timeout=0.1) is None
    """,
    "httpx": """
        import httpx

        def make():
            return httpx.AsyncClient(base_url=URL)

        async def use(client):
            assert (await client.get("/hello")).text == "hello"
    """,
    "httpx2": """
        import httpx2

        def make():
            return httpx2.AsyncClient(base_url=URL)

        async def use(client):
            assert (await client.get("/hello")).text == "hello"
    """,
    "aiohttp": """
        import aiohttp

        def make():
            return aiohttp.ClientSession(URL)

        async def use(session):
            async with session.get("/hello") as response:
                assert await response.text() == "hello"
    """,
    "saver": """
        from typing import TypedDict
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from langgraph.graph import END, START, StateGraph

        class State(TypedDict):
            n: int

        async def node(state):
            await asyncio.sleep(0)
            return {"n": state["n"] + 1}

        builder = StateGraph(State)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        builder.add_edge("node", END)

        async def set_up():
            async with AsyncPostgresSaver.from_conn_string(DSN) as saver:
                await saver.setup()

        asyncio.run(set_up())

        def make():
            return AsyncPostgresSaver.from_conn_string(DSN)

        async def use(saver):
            graph = builder.compile(checkpointer=saver)
            runs = (graph.ainvoke({"n": 1}, {"configurable": {"thread_id": f"{number}"}}) for number in range(3))
            assert await asyncio.gather(*runs) == [{"n": 2}] * 3
    """,
    "store": """
        from langgraph.store.sqlite.aio import AsyncSqliteStore

        def make():
            return AsyncSqliteStore.from_conn_string(FILE)

        async def use(store):
            await store.setup()
            await store.aput(("namespace",), "key", {"value": 1})
            assert (await store.aget(("namespace",), "key")).value == {"value": 1}
    """,
    "lock": """
        def make():
            return asyncio.Lock()

        async def hold(lock):
            async with lock:
                await asyncio.sleep(0)

        async def use(lock):
            await asyncio.gather(*(hold(lock) for _ in range(3)))

        async def leave(lock):
            pass  # a lock is not entered, and needs no closing

        LoopLocal = lambda make, LoopLocal=LoopLocal: LoopLocal(make, close=leave)
    """,
}


@dataclass(frozen=True, slots=True)
class Twin:
    """A resource in a host; what stands on stderr where it fails; the failures of the corpus that it answers."""

    resource: str
    host: str
    seen: str
    failures: tuple[int, ...]


OTHER_LOOP = "attached to a different loop|another operation is in progress"
BOUND_TO = "is bound to a different event loop"
CLOSED = "Event loop is closed"

TWINS = (
    Twin("asyncpg", LATER_LOOPS, OTHER_LOOP, (20,)),
    Twin("asyncpg", TWO_LOOPS, OTHER_LOOP, (23,)),
    Twin("asyncpg", NEW_LOOP, OTHER_LOOP, (56,)),
    Twin("asyncpg", CLOSED_LATER, CLOSED, (25,)),
    Twin("asyncpg", TEST_CLIENT, OTHER_LOOP, (87,)),
    Twin("asyncpg", SYNC_ENDPOINT, OTHER_LOOP, (89,)),
    Twin("asyncpg connection", CALLBACK, OTHER_LOOP, (22,)),
    Twin("psycopg_pool", LATER_LOOPS, "couldn't get a connection", (32,)),
    Twin("psycopg_pool", PLAIN_LOOP, "Task was destroyed but it is pending", (35,)),
    Twin("sqlalchemy", LATER_LOOPS, OTHER_LOOP, (26,)),
    Twin("session", PLAIN_LOOP, "The garbage collector is trying to clean up", (29,)),
    Twin("redis", LATER_LOOPS, CLOSED, (36,)),
    Twin("redis", TWO_LOOPS, f"{OTHER_LOOP}|{BOUND_TO}", (37,)),
    Twin("httpx", LATER_LOOPS, CLOSED, (40,)),
    Twin("httpx", CLOSED_LATER, CLOSED, (42,)),
    Twin("httpx", AT_EXIT, CLOSED, (97,)),
    Twin("httpx2", LATER_LOOPS, CLOSED, (40,)),
    Twin("openai", LATER_LOOPS, CLOSED, (47,)),
    Twin("aiohttp", LATER_LOOPS, CLOSED, (43,)),
    Twin("aiohttp", TWO_LOOPS, "Timeout context manager should be used inside a task", (16, 44)),
    Twin("aiohttp", AT_IMPORT, "no running event loop", (45,)),
    Twin("saver", LATER_LOOPS, "the connection is closed", (60,)),
    Twin("saver", TWO_LOOPS, BOUND_TO, (59,)),
    Twin("store", LATER_LOOPS, CLOSED, (68,)),
    Twin("stream", LATER_LOOPS, f"{OTHER_LOOP}|{CLOSED}", (17,)),
    Twin("stream", PLAIN_LOOP, "ResourceWarning: (loop is closed|unclosed transport)", (99,)),
    Twin("lock", LATER_LOOPS, BOUND_TO, (1,)),
    Twin("lock", TWO_LOOPS, BOUND_TO, (4,)),
)
HOSTS = {
    LATER_LOOPS: "later loops",
    TWO_LOOPS: "two loops",
    AT_EXIT: "at exit",
    NEW_LOOP: "new loop",
    PLAIN_LOOP: "plain loop",
    CLOSED_LATER: "closed later",
    AT_IMPORT: "at import",
    CALLBACK: "callback",
    TEST_CLIENT: "test client",
    SYNC_ENDPOINT: "sync endpoint",
}
NEEDS_POSTGRES = ("asyncpg", "asyncpg connection", "psycopg_pool", "sqlalchemy", "session", "saver")


def marks(resource: str) -> tuple[pytest.MarkDecorator, ...]:
    """What the machine must have."""
    if resource in NEEDS_POSTGRES:
        return (pytest.mark.needs("postgres"),)
    return (pytest.mark.needs("redis"),) if resource == "redis" else ()


ATTEMPTS = 30


def fails(run: Callable[[str, float], "CompletedProcess[str]"], seen: str) -> bool:
    """Tell whether the resource that is kept by hand fails in the way of those who had the failure."""
    try:
        kept = run(KEPT, 6)
    except TimeoutExpired:
        return True  # it hangs: the tasks of its first loop are gone
    return kept.returncode < 0 or re.search(seen, kept.stderr) is not None  # two loops may kill the process


@pytest.mark.parametrize(
    "twin",
    [pytest.param(twin, marks=marks(twin.resource), id=f"{twin.resource}, {HOSTS[twin.host]}") for twin in TWINS],
)
def test_twin(twin: Twin, script: Script, server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The kept resource fails, or says on stderr that it does; through LoopLocal all is well and quiet."""
    rounds = "5" if twin.resource in ("asyncpg", "redis") else "1"  # their loops meet by chance, others' at once
    environment = {"URL": server, "FILE": str(tmp_path / "store.db"), "ROUNDS": rounds}
    if twin.resource in NEEDS_POSTGRES:
        environment["DSN"] = request.getfixturevalue("own_database")
    if twin.resource == "redis":
        environment["REDIS"] = request.getfixturevalue("redis_url")

    def run(way: str, timeout: float) -> "CompletedProcess[str]":
        source = "".join(map(textwrap.dedent, (PRELUDE, RESOURCES[twin.resource], way, twin.host)))
        return script(source, timeout=timeout, **environment)

    # Two loops meet by chance, so it may take some tries; the ones that fail always need one.
    assert any(fails(run, twin.seen) for _ in range(ATTEMPTS)), f"by hand it works: {twin.seen} was not seen"
    ours = run(LOCAL, timeout=40)
    complaints = [line for line in ours.stderr.splitlines() if "Error" in line or "Warning" in line]
    assert (ours.returncode, complaints) == (0, []), ours.stderr
