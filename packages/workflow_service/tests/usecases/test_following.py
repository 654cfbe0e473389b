"""Follow a run: every event, once, in order, to the end."""

import asyncio
from uuid import uuid4

import pytest

from workflow_service.domain.run import NewRun, Progress
from workflow_service.gateways.postgres.feed import APPLICATION_NAME, PostgresRunFeed
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.usecases.following import follow_run

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "scripted", {})
STEPS = 30


async def work(store, run):
    claim = await store.claim(run.id, "worker", 60)
    for n in range(STEPS):
        await store.record_progress(claim, Progress(f"step {n}", n, ""))
    await store.succeed(claim, {})


async def always():
    return True


async def numbers(store, feed, run, after=0, user_id="alice"):
    followed = follow_run(user_id, run.id, runs=store, feed=feed, is_known=always, after=after)
    return [event.seq async for event in followed]


def test_followers_that_come_at_any_time_see_the_same(with_pool, database):
    """Followers from before, during and after the work each see 1..n, and end by themselves."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        async with PostgresRunFeed(database) as feed:
            followers = [asyncio.create_task(numbers(store, feed, run)) for _ in range(3)]
            worker = asyncio.create_task(work(store, run))
            while not worker.done():
                followers.append(asyncio.create_task(numbers(store, feed, run)))
                await pool.execute("SELECT pg_sleep(0.005)")
            followers.append(asyncio.create_task(numbers(store, feed, run)))
            for seen in await asyncio.gather(*followers):
                assert seen == list(range(1, STEPS + 4))

    with_pool(scenario)


def test_a_follower_goes_on_where_it_was(with_pool, database):
    """After an event only later ones come; after the last one, or beyond it, the stream ends at once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        async with PostgresRunFeed(database) as feed:
            beyond = asyncio.create_task(numbers(store, feed, run, after=10_000))
            await work(store, run)
            last = STEPS + 3
            assert await numbers(store, feed, run, after=last - 2) == [last - 1, last]
            assert await numbers(store, feed, run, after=last) == []
            assert await beyond == []

    with_pool(scenario)


def test_there_is_nothing_to_follow_for_a_stranger(with_pool, database):
    """Another user's run, and a run that is not there, end at once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        async with PostgresRunFeed(database) as feed:
            assert await numbers(store, feed, run, user_id="mallory") == []
            followed = follow_run("alice", uuid4(), runs=store, feed=feed, is_known=always)
            assert [event async for event in followed] == []

    with_pool(scenario)


def test_a_follower_survives_the_loss_of_the_feeds_connection(with_pool, database):
    """The feed's connection is ended again and again while the run works: the follower misses nothing."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        async with PostgresRunFeed(database) as feed:
            follower = asyncio.create_task(numbers(store, feed, run))
            claim = await store.claim(run.id, "worker", 60)
            for n in range(STEPS):
                await store.record_progress(claim, Progress(f"step {n}", n, ""))
                if n % 5 == 0:
                    await pool.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = $1 AND datname = current_database()",
                        APPLICATION_NAME,
                    )
            await store.succeed(claim, {})
            async with asyncio.timeout(20):
                assert await follower == list(range(1, STEPS + 4))

    with_pool(scenario)
