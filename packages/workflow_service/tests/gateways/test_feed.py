"""Wake-ups over NOTIFY, and what happens when the connection that hears them dies."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from workflow_service.domain.run import NewRun
from workflow_service.gateways.postgres.feed import APPLICATION_NAME, PostgresRunFeed
from workflow_service.gateways.postgres.runs import PostgresRunStore

pytestmark = pytest.mark.needs("postgres")

COUNT_FEEDS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
NEW = NewRun("alice", "review", {})


def test_a_watcher_is_woken_by_changes_of_its_run_only(with_pool, database):
    """A change wakes who watches that run, once; another run's watcher sleeps on."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        mine, _ = await store.create(NEW)
        other, _ = await store.create(NEW)
        async with (
            PostgresRunFeed(database) as feed,
            feed.watch(mine.id) as wait,
            feed.watch(other.id) as wait_other,
        ):
            await store.claim(mine.id, "worker", 60)
            assert await wait(30)
            assert not await wait(0)
            assert not await wait_other(0)

    with_pool(scenario)


def test_a_change_before_the_wait_is_not_missed(with_pool, database):
    """What happens between watch and wait makes the wait return at once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        async with PostgresRunFeed(database) as feed, feed.watch(run.id) as wait, feed.watch(run.id) as probe:
            await store.claim(run.id, "worker", 60)
            assert await probe(30)  # the notification is here
            assert await wait(0)

    with_pool(scenario)


def test_a_change_that_is_rolled_back_wakes_nobody(with_pool, database):
    """The notification belongs to the transaction that makes the change."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        marker, _ = await store.create(NEW)
        async with PostgresRunFeed(database) as feed, feed.watch(run.id) as wait, feed.watch(marker.id) as mark:
            async with pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute("SELECT pg_notify('workflow_run', $1)", str(run.id))
                await transaction.rollback()
            await store.claim(marker.id, "worker", 60)  # notifications come in order: this one is behind
            assert await mark(30)
            assert not await wait(0)

    with_pool(scenario)


def test_a_feed_whose_connection_is_ended_wakes_everybody_and_goes_on(with_pool, database):
    """After pg_terminate_backend each watcher looks again, and later changes are heard."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        runs = [(await store.create(NEW))[0] for _ in range(2)]
        async with (
            PostgresRunFeed(database) as feed,
            feed.watch(runs[0].id) as wait_first,
            feed.watch(runs[1].id) as wait_second,
        ):
            for _ in range(3):
                ended = await pool.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE application_name = $1 AND datname = current_database()",
                    APPLICATION_NAME,
                )
                assert ended == 1
                assert await wait_first(30)
                assert await wait_second(30)
            await store.claim(runs[0].id, "worker", 60)
            assert await wait_first(30)
            assert not await wait_second(0)

    with_pool(scenario)


def test_a_feed_goes_on_whatever_the_driver_makes_of_a_killed_server(with_pool, database, monkeypatch):
    """asyncpg reports some of them as faults of its own; the next attempt to connect follows all the same."""
    connect, refusals = (
        asyncpg.connect,
        [asyncpg.InternalClientError("cannot switch to state 11"), OSError("away")],
    )

    async def scenario(pool):
        async with PostgresRunFeed(database) as feed, feed.watch(uuid4()) as wait:
            monkeypatch.setattr(asyncpg, "connect", refuse_first)
            await pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = $1 AND datname = current_database()",
                APPLICATION_NAME,
            )
            assert await wait(30)
            assert refusals == []

    async def refuse_first(*args, **options):
        if refusals:
            raise refusals.pop()
        return await connect(*args, **options)

    with_pool(scenario)


def test_the_feed_keeps_nothing_of_those_who_left(with_pool, database):
    """Watching and leaving leaves no entry; a notification for an unknown run, or for none, is ignored."""

    async def scenario(pool):
        async with PostgresRunFeed(database) as feed:
            known = uuid4()
            async with feed.watch(known) as wait:
                for payload in (str(uuid4()), "no run id", "", str(known)):
                    await pool.execute("SELECT pg_notify('workflow_run', $1)", payload)
                assert await wait(30)
            assert not feed._changes

    with_pool(scenario)


def test_a_closed_feed_leaves_no_connection(with_pool, database):
    """Leaving the feed ends its connection."""

    async def scenario(pool):
        async with PostgresRunFeed(database):
            pass
        async with asyncio.timeout(30):
            while await pool.fetchval(COUNT_FEEDS, APPLICATION_NAME):
                await pool.execute("SELECT pg_sleep(0.01)")

    with_pool(scenario)


def test_a_feed_that_cannot_connect_says_so_and_holds_nothing(unused_tcp_port):
    """Entering a feed without a server raises; there is nothing to leave."""

    async def scenario():
        with pytest.raises(OSError):
            async with PostgresRunFeed(f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none"):
                pass
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
