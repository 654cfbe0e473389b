"""ConnectionPoolManager: one pool per loop, or per loop and user; nobody else's is touched."""

import asyncio
import json
import threading

import pytest

import homeloop
from homeloop import LoopRuntime, as_user, resource_scope
from homeloop.async_utils import AsyncContextManager
from homeloop.database import (
    ConnectionPoolManager,
    PoolMetrics,
    ensure_async_pool_initialization,
    get_service_connection,
    get_user_connection,
)
from homeloop.errors import UnsafeRoleError

pytestmark = pytest.mark.needs("postgres")


async def process_of(user_id: str) -> int:
    """Return the server process that serves a user."""
    with as_user(user_id):
        async with get_user_connection() as connection:
            return connection.get_server_pid()


def metrics() -> PoolMetrics:
    return ConnectionPoolManager.get_metrics()


def test_warm_pools_are_open_before_their_first_use(configured, runtime: LoopRuntime) -> None:
    """B3, A3: warming opens users' and the service's pool of this loop, with their connections."""
    runtime.run(ensure_async_pool_initialization)
    assert configured.connections() == 2
    assert metrics()["misses"] == 2
    runtime.run(ensure_async_pool_initialization)
    runtime.run(process_of, "alice")
    assert configured.connections() == 2
    assert metrics()["misses"] == 2


def test_context_manager_has_the_pools_open_in_its_block(configured, runtime: LoopRuntime) -> None:
    """A3: in the block the pools of the running loop are open; after it they still are."""

    async def block() -> int:
        async with AsyncContextManager():
            return metrics()["active_pools"]

    assert runtime.run(block) == 2
    assert metrics()["active_pools"] == 2


def test_each_loop_has_its_pool_and_closing_one_leaves_the_other(configured) -> None:
    """B1: of two live loops each has its pool; `aclose` on the one closes nothing of the other's."""
    with LoopRuntime(name="first") as first, LoopRuntime(name="second") as second:
        processes = [runtime.run(process_of, "alice") for runtime in (first, second)]
        assert processes[0] != processes[1]
        assert [(each["pools"], each["in_use"]) for each in metrics()["loops"]] == [(1, 0), (1, 0)]
        assert ["'first'" in each["loop"] for each in metrics()["loops"]] == [True, False]
        first.run(ConnectionPoolManager.aclose)
        assert metrics()["active_pools"] == configured.connections() == 1
        assert second.run(process_of, "alice") == processes[1]
        assert first.run(process_of, "alice") != processes[0]
    assert metrics()["active_pools"] == configured.connections() == 0


def test_loop_after_loop_opens_and_closes_its_own(configured) -> None:
    """B1: a new loop gets a new pool, and each is closed with its loop, though nobody asked for it."""
    processes = {asyncio.run(process_of("alice")) for _ in range(5)}
    assert len(processes) == 5
    assert metrics()["active_pools"] == configured.connections() == 0
    assert metrics()["misses"] == 5


def test_metrics_count_and_are_plain_data(configured, runtime: LoopRuntime) -> None:
    """Hits, misses and what is in use are told, as data that JSON takes, to any thread."""
    told: list[PoolMetrics] = []

    async def hold() -> None:
        async with get_service_connection():
            told.append(await asyncio.to_thread(metrics))

    runtime.run(hold)
    runtime.run(hold)
    assert json.loads(json.dumps(told)) == told
    loop = told[0]["loops"][0]["loop"]
    assert told[1] == {
        "mode": "shared",
        "hits": 1,
        "misses": 1,
        "evictions": 0,
        "active_pools": 1,
        "active_user_pools": 0,
        "loops": [{"loop": loop, "pools": 1, "in_use": 1}],
    }


def test_scope_has_pools_of_its_own(configured, runtime: LoopRuntime) -> None:
    """D5: inside a resource scope the pools are the scope's; those outside stay open."""

    async def main() -> None:
        outside = await process_of("alice")
        async with resource_scope():
            assert await process_of("alice") != outside
            assert metrics()["active_pools"] == 2
        assert metrics()["active_pools"] == 1
        assert await process_of("alice") == outside

    runtime.run(main)


def test_users_have_pools_of_their_own(configured, runtime: LoopRuntime) -> None:
    """Per-user mode: a connection never changes hands."""
    ConnectionPoolManager.configure(configured.dsn, mode="per_user")
    alices, bobs = (runtime.run(process_of, name) for name in ("alice", "bob"))
    assert alices != bobs
    assert [runtime.run(process_of, name) for name in ("alice", "bob")] == [alices, bobs]
    told = metrics()
    assert (told["mode"], told["hits"], told["misses"], told["active_user_pools"]) == ("per_user", 2, 2, 2)


def test_too_many_users_evict_the_least_recently_used(configured, runtime: LoopRuntime) -> None:
    """Per-user mode: beyond the bound the pool that was idle longest is closed, never one in use."""
    ConnectionPoolManager.configure(configured.dsn, mode="per_user", max_user_pools=2)

    async def main() -> None:
        with as_user("alice"):
            async with get_user_connection() as connection:
                others = [await process_of(name) for name in ("bob", "carol", "bob")]
                assert others[0] != others[2]  # his pool had to go for carol's
                assert await connection.fetchval("SELECT count(*) FROM documents") == 1
        assert metrics()["evictions"] == 2
        assert metrics()["active_user_pools"] == 2
        assert await process_of("alice") == connection_of_alice

    connection_of_alice = runtime.run(process_of, "alice")
    runtime.run(main)


def test_idle_users_pools_are_closed(configured, runtime: LoopRuntime) -> None:
    """Per-user mode: a pool that nobody used for the idle time is closed, and the server sees it go."""
    ConnectionPoolManager.configure(configured.dsn, mode="per_user", max_user_pool_idle=0.05)
    closed = threading.Event()

    class Told:
        def notify(self, event: homeloop.Event) -> None:
            if type(event).__name__ == "ResourceClosed":
                closed.set()

    remove = homeloop.add_instrument(Told())
    try:
        runtime.run(process_of, "alice")
        assert closed.wait(10)
    finally:
        remove()
    told = metrics()
    assert (told["evictions"], told["active_user_pools"]) == (1, 0)


def test_warm_opens_the_current_users_pool(configured) -> None:
    """Per-user mode: warming opens the current user's pool, and nobody's without one."""
    ConnectionPoolManager.configure(configured.dsn, mode="per_user")
    homeloop.run(ensure_async_pool_initialization)
    assert metrics()["active_pools"] == 0
    with as_user("alice"):
        homeloop.run(ensure_async_pool_initialization)
    assert metrics()["active_user_pools"] == 1


@pytest.mark.parametrize("user", [None, "alice"])
def test_warm_looks_at_the_role_of_users_pools(configured, user: str | None, runtime: LoopRuntime) -> None:
    """Per-user mode: a role that row level security does not bind is found at the start, not by the first task."""
    ConnectionPoolManager.configure(configured.service_dsn, mode="per_user")
    with as_user(user), pytest.raises(UnsafeRoleError):
        runtime.run(ensure_async_pool_initialization)


def test_what_an_init_prepares_costs_no_connections(configured, runtime: LoopRuntime) -> None:
    """It belongs to the connection, like the codecs and loggers that the init sets."""

    async def init(connection) -> None:
        await connection.execute("PREPARE own AS SELECT 1")
        await connection.set_type_codec("text", schema="pg_catalog", encoder=str, decoder=str)
        connection.add_query_logger(lambda _: None)

    ConnectionPoolManager.configure(configured.dsn, max_size=1, init=init)
    assert runtime.run(process_of, "alice") == runtime.run(process_of, "bob")


def test_options_reach_the_driver(configured, runtime: LoopRuntime) -> None:
    """What `asyncpg.create_pool` takes may be given; an ``init`` of one's own runs too."""
    seen: list[int] = []

    async def init(connection) -> None:
        seen.append(connection.get_server_pid())

    ConnectionPoolManager.configure(
        configured.dsn, init=init, server_settings={"search_path": "elsewhere, public"}
    )

    async def search_path() -> str:
        async with get_user_connection() as connection:
            return await connection.fetchval("SHOW search_path")

    with as_user("alice"):
        assert runtime.run(search_path) == "elsewhere, public"
        assert runtime.run(search_path) == "elsewhere, public"  # after a reset too
    assert seen == [runtime.run(process_of, "alice")]
