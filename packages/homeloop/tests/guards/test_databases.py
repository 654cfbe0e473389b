"""The guards of database drivers pass the conformance kit, on real servers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import pytest
import redis.asyncio as redis

from homeloop.testing import CHECKS, Part, Subject

Check = Callable[[Subject[Any]], None]
Described = Callable[[str], Subject[Any]]

TEN = "select n from generate_series(1, 10) n"


@asynccontextmanager
async def asyncpg_cursors(pool: asyncpg.Pool) -> AsyncIterator[tuple[Any, Any, Any, Any]]:
    """A transaction, a statement prepared in it, and its cursors of both kinds."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        statement = await connection.prepare(TEN)
        yield transaction, statement, await statement.cursor(), aiter(connection.cursor(TEN))
        await transaction.rollback()


async def use_asyncpg_cursors(got: tuple[Any, Any, Any, Any]) -> None:
    _, statement, cursor, rows = got
    assert [await statement.fetchval(), await cursor.fetchrow(), await anext(rows)] == [1, (1,), (1,)]


async def await_factory(got: tuple[Any, Any, Any, Any]) -> None:
    await got[1].cursor()


def asyncpg_pool(dsn: str) -> Subject[Any]:
    return Subject(
        factory=lambda: asyncpg.create_pool(dsn, min_size=1, max_size=3),
        kind=asyncpg.Pool,
        use=lambda pool: pool.fetch(TEN),
        slow=lambda pool: pool.execute("select pg_sleep(10)"),
        entries={
            "fetch": lambda pool: pool.fetch(TEN),
            "acquire": lambda pool: pool.acquire(),
            "acquire with a timeout": lambda pool: pool.acquire(timeout=5),
            "close": lambda pool: pool.close(),
            "terminate": lambda pool: pool.terminate(),
            "expire_connections": lambda pool: pool.expire_connections(),
        },
        parts={
            "connection": Part(
                open=lambda pool: pool.acquire(),
                entries={
                    "fetchval": lambda connection: connection.fetchval("select 1"),
                    "execute": lambda connection: connection.execute("select 1"),
                    "copy": lambda connection: connection.copy_records_to_table("none", records=[]),
                    "listen": lambda connection: connection.add_listener("channel", print),
                    "transaction": lambda connection: connection.transaction().start(),
                    "prepare": lambda connection: connection.prepare("select 1"),
                    "reset": lambda connection: connection.reset(),
                    "close": lambda connection: connection.close(),
                },
                use=lambda connection: connection.fetchval("select 1"),
            ),
            "cursors": Part(
                open=asyncpg_cursors,
                entries={
                    "commit": lambda got: got[0].commit(),
                    "leave the transaction": lambda got: got[0].__aexit__(None, None, None),
                    "statement": lambda got: got[1].fetch(),
                    "cursor": lambda got: got[2].fetch(1),
                    "iterator": lambda got: anext(got[3]),
                    "factory": await_factory,
                },
                use=use_asyncpg_cursors,
            ),
        },
    )


def asyncpg_connection(dsn: str) -> Subject[Any]:
    return Subject(
        factory=lambda: asyncpg.connect(dsn),
        kind=asyncpg.Connection,
        max_users=1,
        use=lambda connection: connection.fetchval("select 1"),
        slow=lambda connection: connection.execute("select pg_sleep(10)"),
        entries={
            "fetch": lambda connection: connection.fetch("select 1"),
            "close": lambda connection: connection.close(),
        },
    )


async def psycopg_fetch(pool: psycopg_pool.AsyncConnectionPool, query: str = TEN) -> list[Any]:
    async with pool.connection() as connection:
        return await (await connection.execute(query)).fetchall()


async def psycopg_transaction(connection: psycopg.AsyncConnection) -> None:
    async with connection.transaction():
        pass


async def psycopg_pipeline(connection: psycopg.AsyncConnection) -> None:
    async with connection.pipeline():
        pass


@asynccontextmanager
async def psycopg_cursors(pool: psycopg_pool.AsyncConnectionPool) -> AsyncIterator[tuple[Any, Any]]:
    """A cursor of each kind, each with rows to come."""
    async with pool.connection() as connection, connection.cursor() as here:
        await here.execute(TEN)
        async with connection.cursor("there") as there:
            await there.execute(TEN)
            yield here, there


async def psycopg_copy(got: tuple[Any, Any]) -> None:
    async with got[0].copy("copy (select 1) to stdout"):
        pass


async def psycopg_stream(got: tuple[Any, Any]) -> None:
    await anext(got[0].stream(TEN))


async def use_psycopg_cursors(got: tuple[Any, Any]) -> None:
    assert [await cursor.fetchone() for cursor in got] == [(1,), (1,)]


def psycopg_pool_of_three(dsn: str) -> Subject[Any]:
    return Subject(
        factory=lambda: psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=3, open=False),
        kind=psycopg_pool.AsyncConnectionPool,
        use=psycopg_fetch,
        slow=lambda pool: psycopg_fetch(pool, "select pg_sleep(10)"),
        entries={
            "connection": psycopg_fetch,
            "getconn": lambda pool: pool.getconn(),
            "check": lambda pool: pool.check(),
            "resize": lambda pool: pool.resize(2),
            "close": lambda pool: pool.close(),
        },
        parts={
            "connection": Part(
                open=lambda pool: pool.connection(),
                entries={
                    "execute": lambda connection: connection.execute("select 1"),
                    "transaction": psycopg_transaction,
                    "pipeline": psycopg_pipeline,
                    "notifies": lambda connection: anext(connection.notifies(timeout=0)),
                    "commit": lambda connection: connection.commit(),
                    "rollback": lambda connection: connection.rollback(),
                    "set_autocommit": lambda connection: connection.set_autocommit(True),
                    "close": lambda connection: connection.close(),
                },
                use=lambda connection: connection.execute("select 1"),
            ),
            "cursors": Part(
                open=psycopg_cursors,
                entries={
                    "fetch": lambda got: got[0].fetchall(),
                    "execute": lambda got: got[0].execute("select 2"),
                    "copy": psycopg_copy,
                    "stream": psycopg_stream,
                    "close": lambda got: got[0].close(),
                    "fetch there": lambda got: got[1].fetchall(),
                    "iterate there": lambda got: anext(got[1]),
                },
                use=use_psycopg_cursors,
            ),
        },
    )


def psycopg_connection(dsn: str) -> Subject[Any]:
    async def fetch(connection: psycopg.AsyncConnection) -> Any:
        return await (await connection.execute("select 1")).fetchone()

    return Subject(
        factory=lambda: psycopg.AsyncConnection.connect(dsn, autocommit=True),
        kind=psycopg.AsyncConnection,
        use=fetch,
        slow=lambda connection: connection.execute("select pg_sleep(10)"),
        entries={"execute": fetch, "close": lambda connection: connection.close()},
    )


@asynccontextmanager
async def subscribed(client: redis.Redis) -> AsyncIterator[Any]:
    async with client.pubsub() as subscriber:
        await subscriber.subscribe("homeloop-test")
        yield subscriber


async def hear(subscriber: Any) -> None:
    assert (await subscriber.get_message(timeout=5))["type"] == "subscribe"


@asynccontextmanager
async def queued(client: redis.Redis) -> AsyncIterator[Any]:
    async with client.pipeline() as pipeline:
        yield pipeline.echo("one").echo("two")


async def execute(pipeline: Any) -> None:
    assert await pipeline.execute() == [b"one", b"two"]


@asynccontextmanager
async def watching(client: redis.Redis) -> AsyncIterator[Any]:
    async with client.pipeline() as pipeline:
        await pipeline.watch("homeloop-test")
        yield pipeline


@asynccontextmanager
async def pooled(client: redis.Redis) -> AsyncIterator[Any]:
    connection = await client.connection_pool.get_connection()
    yield connection
    await client.connection_pool.release(connection)


async def ping(connection: Any) -> None:
    await connection.send_command("PING")
    assert await connection.read_response() == b"PONG"


def redis_client(url: str, **options: Any) -> Subject[Any]:
    return Subject(
        factory=lambda: redis.from_url(url, **options),
        kind=redis.Redis,
        use=lambda client: client.echo("hello"),
        slow=lambda client: client.blpop("homeloop-test-nothing", timeout=10),
        entries={
            "get": lambda client: client.get("key"),
            "pipeline": lambda client: client.pipeline().get("key").execute(),
            "pubsub": lambda client: client.pubsub().subscribe("channel"),
            "lock": lambda client: client.lock("homeloop-test-lock").acquire(),
            "client": lambda client: client.client().get("key"),
            "transaction": lambda client: client.transaction(print, "key"),
            "pool": lambda client: client.connection_pool.get_connection(),
            "disconnect": lambda client: client.connection_pool.disconnect(),
            "aclose": lambda client: client.aclose(),
        },
        parts={
            "subscriber": Part(
                open=subscribed,
                entries={
                    "get_message": lambda subscriber: subscriber.get_message(),
                    "subscribe": lambda subscriber: subscriber.subscribe("other"),
                    "unsubscribe": lambda subscriber: subscriber.unsubscribe(),
                    "listen": lambda subscriber: anext(subscriber.listen()),
                    "aclose": lambda subscriber: subscriber.aclose(),
                },
                use=hear,
            ),
            "pipeline": Part(
                open=queued,
                entries={
                    "execute": lambda pipeline: pipeline.execute(),
                    "reset": lambda pipeline: pipeline.reset(),
                },
                use=execute,
            ),
            "watching pipeline": Part(
                open=watching,
                entries={
                    "get": lambda pipeline: pipeline.get("key"),
                    "unwatch": lambda pipeline: pipeline.unwatch(),
                },
                use=lambda pipeline: pipeline.get("homeloop-test"),
            ),
            "lock": Part(
                open=lambda client: client.lock("homeloop-test-lock", timeout=30),
                entries={"release": lambda lock: lock.release(), "extend": lambda lock: lock.extend(1)},
                use=lambda lock: lock.owned(),
            ),
            "connection": Part(
                open=pooled,
                entries={
                    "send": lambda connection: connection.send_command("PING"),
                    "read": lambda connection: connection.read_response(),
                    "disconnect": lambda connection: connection.disconnect(),
                },
                use=ping,
            ),
        },
    )


POSTGRES: dict[str, Described] = {
    "asyncpg.Pool": asyncpg_pool,
    "asyncpg.Connection": asyncpg_connection,
    "psycopg_pool.AsyncConnectionPool": psycopg_pool_of_three,
    "psycopg.AsyncConnection": psycopg_connection,
}
REDIS: dict[str, Described] = {
    "redis.Redis": redis_client,
    "redis.Redis on one connection": partial(redis_client, single_connection_client=True),
}


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("subject", POSTGRES.values(), ids=POSTGRES)
def test_postgres(check: Check, subject: Described, postgres_url: str) -> None:
    """PostgreSQL drivers refuse strangers, and keep working for their owner."""
    check(subject(postgres_url))


@pytest.mark.needs("redis")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("subject", REDIS.values(), ids=REDIS)
def test_redis(check: Check, subject: Described, redis_url: str) -> None:
    """The Redis driver refuses strangers, and keeps working for its owner."""
    check(subject(redis_url))
