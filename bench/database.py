"""
What does a task of three queries cost, called from sync code, and how many connections does it open?

Peers run side by side in one process, in interleaved rounds, so that a busy machine slows all of
them; each has a database of its own, so that the server counts its sessions. Ratios are to the
pool per task of the documents that started homeloop.

Usage: python bench/database.py [--rounds N] [--seconds S] [--json FILE]

TEST_DATABASE_URL says where PostgreSQL is (a superuser's address), if not at the usual place.
"""

import argparse
import asyncio
import json
import os
import threading
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from rounds import Peer, in_rounds, stay_on_one_cpu, versions

import homeloop
from homeloop.database import ConnectionPoolManager, get_service_connection, get_user_connection

SERVER = os.environ.get("TEST_DATABASE_URL") or "postgresql://postgres@127.0.0.1:5432/postgres"
PER_TASK = "new pool per task"
BY_HAND = "loop thread and pool by hand"
USER = "homeloop, user connection"
SERVICE = "homeloop, service connection"
USER_BY_HAND = "a user's transaction by hand"
POOL_SIZE = 10


async def three_queries(connection: Any) -> None:
    """The work."""
    for number in range(3):
        assert await connection.fetchval("SELECT $1::int", number) == number


async def on_pool(pool: Any) -> None:
    """The work on a connection of a pool."""
    async with pool.acquire() as connection:
        await three_queries(connection)


def per_task(dsn: str, size: int) -> Peer:
    """What the documents did: a pool for each task, on the loop of each task."""

    async def task() -> None:
        async with asyncpg.create_pool(dsn, min_size=size, max_size=size) as pool:
            await on_pool(pool)

    return Peer(lambda: asyncio.run(task()))


def connect_per_task(dsn: str) -> Peer:
    """No pool at all."""

    async def task() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await three_queries(connection)
        finally:
            await connection.close()

    return Peer(lambda: asyncio.run(task()))


def global_pool(dsn: str) -> Peer:
    """One pool for the process under a loop per task: what fails in the documents."""
    pools: list[Any] = []

    async def task() -> None:
        if not pools:
            pools.append(await asyncpg.create_pool(dsn, min_size=1, max_size=1))
        async with asyncio.timeout(0.5):  # some fail, others wait for ever
            await on_pool(pools[0])

    return Peer(lambda: asyncio.run(task()))


def by_hand(
    dsn: str, factory: Callable[[], asyncio.AbstractEventLoop], work: Callable[..., Awaitable[None]]
) -> Peer:
    """A loop on a thread, a pool on the loop: what people write who know."""
    loop = factory()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def open_pool() -> Any:
        return await asyncpg.create_pool(dsn, min_size=1, max_size=POOL_SIZE)

    pool = call(open_pool())

    def close() -> None:
        call(pool.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    return Peer(lambda: call(work(pool)), close)


def same_thread(dsn: str) -> Peer:
    """A runner kept in the calling thread: no other thread can use it."""
    runner = asyncio.Runner()

    async def open_pool() -> Any:
        return await asyncpg.create_pool(dsn, min_size=1, max_size=POOL_SIZE)

    pool = runner.run(open_pool())

    def close() -> None:
        runner.run(pool.close())
        runner.close()

    return Peer(lambda: runner.run(on_pool(pool)), close)


def at_home(dsn: str, factory: Callable[[], asyncio.AbstractEventLoop]) -> Peer:
    """homeloop: a runtime and a LoopLocal."""
    runtime = homeloop.LoopRuntime(name="bench", loop_factory=factory)
    pools = homeloop.LoopLocal(lambda: asyncpg.create_pool(dsn, min_size=1, max_size=POOL_SIZE))

    async def task() -> None:
        async with pools() as pool:
            await on_pool(pool)

    return Peer(lambda: runtime.run(task), runtime.close)


def through_door(door: Callable[[], Any]) -> Peer:
    """homeloop: a connection of `homeloop.database`."""
    runtime = homeloop.LoopRuntime(name="bench-door")

    async def task() -> None:
        async with door() as connection:
            await three_queries(connection)

    def as_somebody() -> None:
        with homeloop.as_user("somebody"):
            runtime.run(task)

    return Peer(as_somebody, runtime.close)


async def as_user_by_hand(pool: Any) -> None:
    """A user's transaction as people write it: it leaves role, temporary tables and so on to the next user."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', $1, true)", "somebody")
        await three_queries(connection)


def sqlalchemy_null_pool(dsn: str) -> Peer | None:
    """SQLAlchemy's advice for several loops."""
    try:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool
    except ImportError:
        return None
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)

    async def task() -> None:
        async with engine.connect() as connection:
            for number in range(3):
                found = await connection.execute(text("SELECT cast(:n AS int)"), {"n": number})
                assert found.scalar_one() == number

    return Peer(lambda: asyncio.run(task()))


def psycopg_sync(dsn: str) -> Peer | None:
    """No loop at all: the floor."""
    try:
        import psycopg
    except ImportError:
        return None
    connection = psycopg.connect(dsn, autocommit=True)

    def task() -> None:
        for number in range(3):
            row = connection.execute("SELECT %s::int", (number,)).fetchone()
            assert row == (number,)

    return Peer(task, connection.close)


def uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, if it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Databases:
    """A database for each peer, made and dropped by the bench; the server counts the sessions of each."""

    def __init__(self) -> None:
        self._prefix = f"homeloop_bench_{uuid.uuid4().hex[:8]}"
        self._names: dict[str, str] = {}
        self._ask(f"CREATE ROLE {self._prefix} LOGIN PASSWORD '{self._prefix}'")

    def make(self, peer: str, *, bound_role: bool = False) -> str:
        """Return the address of a new database, for a superuser or for a role that row level security binds."""
        name = self._names[peer] = f"{self._prefix}_{len(self._names)}"
        self._ask(f"CREATE DATABASE {name}")
        server = urlsplit(SERVER)
        login = f"{self._prefix}:{self._prefix}@{server.hostname}:{server.port or 5432}"
        return urlunsplit(server._replace(path=f"/{name}", netloc=login if bound_role else server.netloc))

    def sessions(self) -> dict[str, int]:
        """Return how many sessions each peer has had; exact once they have ended."""
        rows = self._ask("SELECT datname, sessions FROM pg_stat_database")
        counts = {row["datname"]: row["sessions"] for row in rows}
        return {peer: counts[name] for peer, name in self._names.items()}

    def drop(self) -> None:
        """Leave nothing behind."""
        for name in self._names.values():
            self._ask(f"DROP DATABASE {name} WITH (FORCE)")
        self._ask(f"DROP ROLE {self._prefix}")

    def _ask(self, query: str) -> list[Any]:
        async def ask() -> list[Any]:
            connection = await asyncpg.connect(SERVER)
            try:
                return await connection.fetch(query)
            finally:
                await connection.close()

        return asyncio.run(ask())


def peers(databases: Databases) -> dict[str, Peer]:
    """Everybody who is installed."""
    make = databases.make
    found: dict[str, Peer | None] = {
        PER_TASK: per_task(make(PER_TASK), POOL_SIZE),
        "new pool of one per task": per_task(make("new pool of one per task"), 1),
        "connect per task": connect_per_task(make("connect per task")),
        "SQLAlchemy NullPool per task": sqlalchemy_null_pool(make("SQLAlchemy NullPool per task")),
        "global pool, asyncio.run": global_pool(make("global pool, asyncio.run")),
        "psycopg, sync": psycopg_sync(make("psycopg, sync")),
        "runner and pool in the same thread": same_thread(make("runner and pool in the same thread")),
        BY_HAND: by_hand(make(BY_HAND), asyncio.new_event_loop, on_pool),
        "homeloop": at_home(make("homeloop"), asyncio.new_event_loop),
        USER_BY_HAND: by_hand(make(USER_BY_HAND), asyncio.new_event_loop, as_user_by_hand),
        USER: through_door(get_user_connection),
        SERVICE: through_door(get_service_connection),
    }
    ConnectionPoolManager.configure(make(USER, bound_role=True), service_dsn=make(SERVICE), max_size=POOL_SIZE)
    if (uvloop := uvloop_factory()) is not None:
        found[f"{BY_HAND}, uvloop"] = by_hand(make(f"{BY_HAND}, uvloop"), uvloop, on_pool)
        found["homeloop, uvloop"] = at_home(make("homeloop, uvloop"), uvloop)
    return {name: peer for name, peer in found.items() if peer is not None}


def measure(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return what `in_rounds` does of each peer, and its sessions."""
    databases = Databases()
    try:
        stay_on_one_cpu()
        found = in_rounds(peers(databases), rounds, seconds, {"to_base": PER_TASK, "to_hand": BY_HAND})
        sessions = databases.sessions()
    finally:
        databases.drop()
    return {name: {**row, "sessions": sessions[name]} for name, row in found.items()}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.15, help="of each peer in each round")
    parser.add_argument("--json", help="also write the figures there")
    options = parser.parse_args()
    print(versions("homeloop", "asyncpg", "uvloop", "SQLAlchemy", "psycopg"))
    table = measure(options.rounds, options.seconds)
    print("\n| | tasks/s | to new pool per task | to by hand | failed | sessions |\n|---|---|---|---|---|---|")
    for name, row in sorted(table.items(), key=lambda item: item[1]["rate"]):
        to_others = f"{row['to_base']:.1f} | {row['to_hand']:.2f}"
        print(f"| {name} | {row['rate']:.0f} | {to_others} | {row['failed']:.0f} | {row['sessions']:.0f} |")
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
