"""F3, pools: what every driver's pool has, gives and keeps waiting; an exhausted one is named."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import aiohttp
import asyncpg
import httpx
import httpx2
import psycopg
import psycopg_pool
import pytest
import redis.asyncio as redis
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from homeloop import (
    Affinity,
    HealthMonitor,
    HealthReport,
    HealthThresholds,
    InstanceStatistics,
    LoopLocal,
    LoopRuntime,
    PoolStatistics,
    ResourceHealth,
    ResourceStatistics,
    measure,
)
from homeloop.adapters import aiohttp as of_aiohttp
from homeloop.adapters import asyncpg as of_asyncpg
from homeloop.adapters import httpx as of_httpx
from homeloop.adapters import psycopg as of_psycopg
from homeloop.adapters import redis as of_redis
from homeloop.adapters import sqlalchemy as of_sqlalchemy
from homeloop.cli._ps import process_lines
from homeloop.health import LocalProcess
from homeloop.health._judgement import judge, size

BOUND = 20.0  # seconds
NAME = "orders"


@dataclass(frozen=True)
class Driver:
    """How a pool of two connections is made, and one of its connections held; and how many are got in fact."""

    pools: Callable[[str], LoopLocal[Any]]
    hold: Callable[[Any, str], AbstractAsyncContextManager[object]]
    got: int = 2


def engine(url: str) -> AsyncEngine:
    """Make an engine whose pool keeps one connection and may give two."""
    address = url.replace("postgresql://", "postgresql+asyncpg://", 1)
    return create_async_engine(address, pool_size=1, max_overflow=1)


@asynccontextmanager
async def redis_connection(client: Any, _: str) -> AsyncIterator[object]:
    """Hold a connection of a client's pool."""
    connection = await client.connection_pool.get_connection()
    try:
        yield connection
    finally:
        await client.connection_pool.release(connection)


DATABASES = {
    "asyncpg": Driver(
        lambda url: LoopLocal(lambda: asyncpg.create_pool(url, min_size=1, max_size=2), name=NAME),
        lambda pool, _: pool.acquire(),
    ),
    "psycopg_pool": Driver(
        lambda url: LoopLocal(
            lambda: psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=2, open=False), name=NAME
        ),
        lambda pool, _: pool.connection(),
    ),
    "sqlalchemy": Driver(
        lambda url: LoopLocal(lambda: engine(url), close=AsyncEngine.dispose, name=NAME),
        lambda pool, _: pool.connect(),
    ),
}
CLIENTS = {
    "aiohttp": Driver(
        lambda _: LoopLocal(lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2)), name=NAME),
        lambda session, url: session.get(url),
        got=0,
    ),
    "httpx": Driver(
        lambda _: LoopLocal(
            lambda: httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=2)), name=NAME
        ),
        lambda client, url: client.stream("GET", url),
        got=0,
    ),
    "httpx2": Driver(
        lambda _: LoopLocal(
            lambda: httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=2)), name=NAME
        ),
        lambda client, url: client.stream("GET", url),
        got=0,
    ),
}
CACHES = {
    "redis": Driver(
        lambda url: LoopLocal(
            lambda: redis.Redis.from_pool(
                redis.BlockingConnectionPool.from_url(url, max_connections=2, timeout=None)
            ),
            name=NAME,
        ),
        redis_connection,
    ),
}


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end, which is the client's
        writer.close()

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            yield f"http://{host}:{port}/"

    with LoopRuntime(name="server") as home, home.enter(serving()) as url:
        yield url


def exhaust(driver: Driver, url: str, runtime: LoopRuntime, monitor: HealthMonitor) -> None:
    """Have five hold a connection of a pool of two; look what is told then, and when they are gone."""
    pools = driver.pools(url)
    reports: SimpleQueue[HealthReport] = SimpleQueue()
    holders: list[asyncio.Task[None]] = []
    got = asyncio.Semaphore(0)

    async def hold(pool: Any) -> None:
        async with driver.hold(pool, url):
            got.release()
            await asyncio.Event().wait()

    async def start() -> None:
        pool = await pools.get()
        holders.extend(asyncio.create_task(hold(pool)) for _ in range(5))

    async def stop() -> None:
        # Not sooner: redis loses a cancellation that comes while it connects, and its holder stays.
        for _ in range(driver.got):
            await got.acquire()
        for holder in holders:
            holder.cancel()
        await asyncio.wait(holders)

    monitor.listen(reports.put)
    monitor.start(interval=0.05)
    runtime.run(start, timeout=BOUND)
    report = wait_for(reports, lambda pool: pool == PoolStatistics(2, 2, 2, 3))  # they are on their way
    (finding,) = (each for each in report.findings if each.kind == "pool-exhausted")
    assert finding.subject == NAME
    assert str(finding).startswith("pool orders exhausted: 2 of 2 in use, 3 wait; hold a connection only while")
    told = {(each.metric.name, *each.labels): each.value for each in measure(report)}
    assert told["homeloop.health.findings", "pool-exhausted"] == 1
    assert [told[f"homeloop.pool.{name}", NAME] for name in ("size", "in_use", "limit", "waiting")] == [2, 2, 2, 3]
    lines = tuple(process_lines(LocalProcess(7, "answered", {"command": "shop", **report.as_dict()})))
    assert any(line.startswith("  pool      orders on loop ") for line in lines)
    assert any(line.endswith(": 2 of 2 in use, 3 waiting, 2 open") for line in lines)
    assert f"  ! {finding}" in lines

    runtime.run(stop, timeout=BOUND)
    report = wait_for(reports, lambda pool: pool is not None and not pool.in_use and not pool.waiting)
    assert not any(each.kind == "pool-exhausted" for each in report.findings)


def wait_for(
    reports: "SimpleQueue[HealthReport]", wanted: Callable[[PoolStatistics | None], bool]
) -> HealthReport:
    """Return the first report that says of the pool what is wanted; fail if there is none in time."""
    deadline = time.monotonic() + 2 * BOUND
    while not wanted(pool := pool_of(report := reports.get(timeout=BOUND))):
        assert time.monotonic() < deadline, f"it stays at {pool}"
    return report


def pool_of(report: HealthReport) -> PoolStatistics | None:
    """Return what a report says of the pool; None before it is open."""
    instances = [
        instance
        for resource in report.resources
        if resource.name == NAME
        for instance in resource.statistics.instances
        if instance.is_open
    ]
    return instances[0].pool if instances else None


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("driver", DATABASES)
def test_f3_an_exhausted_pool_of_connections_to_a_database_is_named(
    driver: str, postgres_url: str, runtime: LoopRuntime, patient: HealthMonitor
) -> None:
    """By the report, the metrics and ``homeloop ps``, until connections are given back."""
    exhaust(DATABASES[driver], postgres_url, runtime, patient)


@pytest.mark.parametrize("driver", CLIENTS)
def test_f3_an_exhausted_pool_of_an_http_client_is_named(
    driver: str, silent_url: str, runtime: LoopRuntime, patient: HealthMonitor
) -> None:
    """A server that does not answer is what exhausts them."""
    exhaust(CLIENTS[driver], silent_url, runtime, patient)


@pytest.mark.needs("redis")
def test_f3_an_exhausted_pool_of_redis_is_named(
    redis_url: str, runtime: LoopRuntime, patient: HealthMonitor
) -> None:
    """One that has its callers wait."""
    exhaust(CACHES["redis"], redis_url, runtime, patient)


@pytest.mark.needs("redis")
def test_f3_a_pool_that_refuses_is_exhausted_when_all_is_in_use(
    redis_url: str, runtime: LoopRuntime, patient: HealthMonitor
) -> None:
    """The other kind of redis: nobody ever waits, so the finding does not wait for that."""
    clients = LoopLocal(lambda: redis.Redis.from_url(redis_url, max_connections=1), name=NAME)

    async def hold() -> HealthReport:
        async with redis_connection(await clients.get(), ""):
            return patient.report()

    report = runtime.run(hold, timeout=BOUND)
    (finding,) = (each for each in report.findings if each.kind == "pool-exhausted")
    assert finding.fact == "pool orders exhausted: 1 of 1 in use, the next one is refused"
    lines = tuple(process_lines(LocalProcess(7, "answered", {"command": "shop", **report.as_dict()})))
    assert any(line.endswith(": 1 of 1 in use, 1 open") for line in lines)


@pytest.mark.needs("postgres")
def test_what_is_no_pool_is_not_measured(postgres_url: str) -> None:
    """Closed ones, single connections, other transports: None, and no error."""

    async def look() -> None:
        assert of_asyncpg.measure(asyncpg.create_pool(postgres_url)) is None
        connection = await psycopg.AsyncConnection.connect(postgres_url)
        assert of_psycopg.measure(connection) is None
        await connection.close()
        closed = aiohttp.ClientSession()
        await closed.close()
        assert of_aiohttp.measure(closed) is None
        assert of_httpx.measure(object()) is None
        assert of_redis.measure(object()) is None
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as unbounded:
            assert of_httpx.measure(unbounded) == PoolStatistics(0, 0, None, 0)

    asyncio.run(look())
    address = postgres_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    assert of_sqlalchemy.measure(object()) is None
    assert of_sqlalchemy.measure(create_async_engine(address, poolclass=NullPool)) is None
    sessions = async_sessionmaker(create_async_engine(address, max_overflow=-1))
    assert of_sqlalchemy.measure(sessions) == PoolStatistics(0, 0, None, 0)


def test_a_pool_without_a_limit_is_never_exhausted() -> None:
    """Nor is one that has something left, or that nobody waits for."""
    assert not PoolStatistics(9, 9, None, 1).is_exhausted
    assert not PoolStatistics(9, 8, 9, 1).is_exhausted
    assert not PoolStatistics(9, 9, 9, 0).is_exhausted
    assert PoolStatistics(9, 9, 9, 1).is_exhausted
    assert PoolStatistics(9, 9, 9, None).is_exhausted


def test_several_exhausted_pools_of_one_resource_are_one_finding() -> None:
    """That with the most waiting is told, and how many others there are."""
    home = Affinity(1, 7, "asyncio.SelectorEventLoop", "worker")
    one = InstanceStatistics(home, 1.0, 0, True, PoolStatistics(2, 2, 2, 1))
    instances = (one, replace(one, pool=PoolStatistics(3, 3, 3, 9)), replace(one, pool=None))
    resource = ResourceHealth("users", ResourceStatistics(misses=3, instances=instances), 1)
    (finding,) = judge([], [], [resource], [], HealthThresholds())
    assert finding.fact == "pool users exhausted: 3 of 3 in use, 9 wait, and 1 other pools of it are exhausted"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            7,
            "users: 7 connections were wanted at the same time, and the pool gives 3; "
            "a limit of 7 makes nobody wait",
        ),
        (2, "users: at most 2 connections at the same time; a pool of that size makes nobody wait"),
        (1, None),
        (None, "users: at most 4 leases of one instance at the same time; a pool of that size makes nobody wait"),
    ],
)
def test_f4_the_size_of_a_pool_is_hinted_at(wanted: int | None, told: str | None) -> None:
    """By the connections that were in use or waited for at the most; else by the leases."""
    home = Affinity(1, 7, "asyncio.SelectorEventLoop", "worker")
    pool = None if wanted is None else PoolStatistics(3, 3, 3, 1)
    figures = ResourceStatistics(misses=1, instances=(InstanceStatistics(home, 1.0, 0, True, pool),))
    hints = size([], [ResourceHealth("users", figures, 4, wanted)])
    assert [hint.text for hint in hints] == ([] if told is None else [told])


USE_PRODUCT = """
    import asyncio, product
    from homeloop import LoopLocal

    clients = LoopLocal(product.Client)

    async def look():
        await clients.get()
        for _ in range(2):
            (instance,) = clients.statistics().instances
            print(instance.pool)

    asyncio.run(look())
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "from homeloop import PoolStatistics\ndef measure(client): return PoolStatistics(1, 0, 2, 0)",
            "PoolStatistics(size=1, in_use=0, limit=2, waiting=0)",
        ),
        ("import nothing_of_that_name", "None"),
        ("def measure(client): return client.gone", "None"),
    ],
)
def test_anybody_may_bring_a_measure(source: str, told: str, script: Any, tmp_path: Path) -> None:
    """By an entry point named as the product's package; one that does not work is reported once, and no more."""
    (tmp_path / "product.py").write_text("class Client:\n    async def aclose(self): pass\n")
    (tmp_path / "measures.py").write_text(source)
    metadata = tmp_path / "product_measure-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: product-measure\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[homeloop.measures]\nproduct = measures:measure\n")
    run = script(USE_PRODUCT, PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout.splitlines()) == (0, [told, told]), run.stderr
    assert run.stderr.count("MeasureFailed(what='product.Client'") == (told == "None"), run.stderr
