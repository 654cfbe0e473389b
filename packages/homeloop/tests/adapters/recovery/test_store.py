"""Recovery's records in PostgreSQL: each step is one statement, whoever takes it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import asyncpg
import pytest

from homeloop.adapters.celery.recovery import PostgresStore
from homeloop.adapters.celery.recovery._records import Claim, Held, Progress
from homeloop.errors import ConfigurationError

pytestmark = pytest.mark.needs("postgres")
LEASE = 60.0  # seconds; never over in a test
OVER = -1.0  # seconds; over at once
MAX = 2  # losses
CLAIM = Claim("shop", "1", "analyse", 0, 0, 0, "here", b"message")

Scenario = Callable[[PostgresStore], Awaitable[None]]


def play(own_database: str, scenario: Scenario) -> None:
    """Run a scenario on a store whose table is there."""

    async def whole() -> None:
        store = PostgresStore(own_database)
        await store.prepare()
        await scenario(store)

    asyncio.run(whole())


def progress(percent: float) -> Progress:
    return Progress("step", percent, b"payload")


def test_the_table_is_made_once_however_many_begin(own_database: str) -> None:
    """Twenty stores that start at the same time, in a schema of their own."""

    async def scenario() -> None:
        stores = [PostgresStore(own_database, table="jobs.recovery") for _ in range(20)]
        connection = await asyncpg.connect(own_database)
        await connection.execute("CREATE SCHEMA jobs")
        await connection.close()
        await asyncio.gather(*(store.prepare() for store in stores))
        await stores[0].prepare()
        assert await stores[0].claim(CLAIM, LEASE, MAX) is not None

    asyncio.run(scenario())


def test_c3_one_of_many_gets_a_task(own_database: str) -> None:
    """Twenty claims at the same time of a new, a queued and a lost task: one each, with ever higher fences."""

    async def scenario(store: PostgresStore) -> None:
        async def race() -> int:
            claims = [replace(CLAIM, holder=str(number)) for number in range(20)]
            found = await asyncio.gather(*(store.claim(each, LEASE, MAX) for each in claims))
            (held,) = [each for each in found if isinstance(each, Held)]
            return held.fence

        first = await race()
        await store.release("shop", "1", first, LEASE)
        second = await race()
        await store.renew("shop", {"1": second}, OVER)
        assert first < second < await race()

    play(own_database, scenario)


def test_c3_who_was_replaced_can_write_nothing(own_database: str) -> None:
    """Neither checkpoint, nor renewal, nor release, nor the end."""

    async def scenario(store: PostgresStore) -> None:
        old = await store.claim(CLAIM, OVER, MAX)
        new = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(old, Held)
        assert isinstance(new, Held)
        assert await store.save("shop", "1", old.fence, progress(90), LEASE) == "lost"
        assert await store.renew("shop", {"1": old.fence}, LEASE) == set()
        assert not await store.release("shop", "1", old.fence, LEASE)
        assert not await store.end("shop", "1", old.fence)
        assert await store.renew("shop", {"1": new.fence}, LEASE) == {"1"}
        assert await store.save("shop", "1", new.fence, progress(10), LEASE) == "saved"

    play(own_database, scenario)


def test_c3_progress_never_goes_backwards(own_database: str) -> None:
    """Also when checkpoints overtake each other; the next run resumes from the furthest."""

    async def scenario(store: PostgresStore) -> None:
        held = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(held, Held)
        assert held.progress is None
        assert await store.save("shop", "1", held.fence, progress(0), LEASE) == "saved"
        assert await store.save("shop", "1", held.fence, progress(50), LEASE) == "saved"
        assert await store.save("shop", "1", held.fence, Progress("early", 40, b""), LEASE) == "behind"
        await store.release("shop", "1", held.fence, LEASE)
        again = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(again, Held)
        assert again.progress == progress(50)

    play(own_database, scenario)


def test_c3_what_has_ended_does_not_run_but_for_its_retry(own_database: str) -> None:
    """A duplicate is refused; the retry that was asked for resumes, and no other one."""

    async def scenario(store: PostgresStore) -> None:
        held = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(held, Held)
        await store.save("shop", "1", held.fence, progress(50), LEASE)
        assert await store.claim(CLAIM, LEASE, MAX) is None  # it runs
        assert await store.wait("shop", "1", held.fence, LEASE)
        assert await store.claim(CLAIM, LEASE, MAX) is None
        retry = await store.claim(replace(CLAIM, retries=1), LEASE, MAX)
        assert isinstance(retry, Held)
        assert retry.progress == progress(50)
        assert await store.claim(CLAIM, LEASE, MAX) is None
        assert await store.end("shop", "1", None)
        for retries in (1, 2):
            assert await store.claim(replace(CLAIM, retries=retries), LEASE, MAX) is None

    play(own_database, scenario)


def test_c3_what_replaces_a_task_begins_anew(own_database: str) -> None:
    """`Task.replace` sends another task with the same id: it runs, once, from its own beginning."""

    async def scenario(store: PostgresStore) -> None:
        held = await store.claim(replace(CLAIM, retries=3), LEASE, MAX)
        assert isinstance(held, Held)
        await store.save("shop", "1", held.fence, progress(50), LEASE)
        other = replace(CLAIM, name="other", replaced=1)
        assert await store.claim(other, LEASE, MAX) == "later"
        assert await store.end("shop", "1", held.fence)
        replacement = await store.claim(other, LEASE, MAX)
        assert isinstance(replacement, Held)
        assert replacement.progress is None
        assert await store.claim(other, LEASE, MAX) is None
        assert await store.claim(replace(CLAIM, retries=4), LEASE, MAX) is None
        assert await store.save("shop", "1", replacement.fence, progress(1), LEASE) == "saved"
        (record,) = await store.list_tasks("shop", None, 10)
        assert (record.name, record.percent) == ("other", 1)

    play(own_database, scenario)


def test_c3_a_sweep_takes_what_is_lost_the_most_urgent_first(own_database: str) -> None:
    """Sweeps at the same time share it out, and leave what is held, ended or another app's."""

    async def scenario(store: PostgresStore) -> None:
        for number in range(40):
            await store.claim(replace(CLAIM, task_id=str(number), priority=number % 4), OVER, MAX)
        await store.claim(replace(CLAIM, task_id="held"), LEASE, MAX)
        await store.claim(replace(CLAIM, task_id="other", app="other"), OVER, MAX)
        await store.claim(replace(CLAIM, task_id="ended"), OVER, MAX)
        await store.end("shop", "ended", None)
        urgent = await store.sweep("shop", LEASE, MAX, 10)
        assert [int(each.task_id) % 4 for each in urgent] == [3] * 10
        shares = await asyncio.gather(*(store.sweep("shop", LEASE, MAX, 10) for _ in range(8)))
        taken = [each.task_id for share in (urgent, *shares) for each in share]
        while more := await store.sweep("shop", LEASE, MAX, 10):  # a sweep passes over what another one looks at
            taken += [each.task_id for each in more]
        assert sorted(map(int, taken)) == list(range(40))

    play(own_database, scenario)


def test_c3_what_is_lost_too_often_is_dead_until_it_is_requeued(own_database: str) -> None:
    """Progress forgives the losses before it; what was not sent is no loss."""

    async def scenario(store: PostgresStore) -> None:
        async def lose() -> bool:
            held = await store.claim(CLAIM, OVER, MAX)
            assert isinstance(held, Held)
            (lost,) = await store.sweep("shop", LEASE, MAX, 10)
            return lost.is_dead

        assert [await lose(), await lose()] == [False, False]
        held = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(held, Held)
        await store.save("shop", "1", held.fence, progress(1), OVER)
        (lost,) = await store.sweep("shop", LEASE, MAX, 10)
        assert (lost.losses, lost.is_dead) == (1, False)
        for _ in range(5):  # the broker is away, or hangs until somebody else sweeps
            await store.release("shop", "1", lost.fence, OVER)
            (lost,) = await store.sweep("shop", OVER, MAX, 10)
            assert (lost.losses, lost.is_dead) == (1, False)
        assert [await lose(), await lose()] == [False, True]
        assert await store.claim(CLAIM, LEASE, MAX) is None
        assert await store.sweep("shop", LEASE, MAX, 10) == []
        (record,) = await store.list_tasks("shop", "dead", 10)
        assert (record.task_id, record.step, record.percent) == ("1", "step", 1)
        assert await store.requeue("other", "1", LEASE) is None
        requeued = await store.requeue("shop", "1", LEASE)
        assert requeued is not None
        assert requeued.losses == 0
        assert await store.claim(CLAIM, LEASE, MAX) is not None

    play(own_database, scenario)


def test_what_has_ended_is_deleted_after_a_while(own_database: str) -> None:
    """And nothing else is."""

    async def scenario(store: PostgresStore) -> None:
        await store.claim(CLAIM, LEASE, MAX)
        await store.claim(replace(CLAIM, task_id="2"), LEASE, MAX)
        await store.end("shop", "2", None)
        await store.purge("shop", LEASE)
        assert {each.task_id for each in await store.list_tasks("shop", None, 10)} == {"1", "2"}
        await store.purge("shop", OVER)
        assert {each.task_id for each in await store.list_tasks("shop", None, 10)} == {"1"}

    play(own_database, scenario)


def test_c3_a_retry_waits_for_a_run_before_it_whose_lease_lasts(own_database: str) -> None:
    """A worker that was replaced may still have sent it: it takes nothing from the holder."""

    async def scenario(store: PostgresStore) -> None:
        held = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(held, Held)
        assert await store.claim(replace(CLAIM, retries=1), LEASE, MAX) == "later"
        assert await store.renew("shop", {"1": held.fence}, OVER) == {"1"}
        retry = await store.claim(replace(CLAIM, retries=1), LEASE, MAX)
        assert isinstance(retry, Held)
        assert await store.renew("shop", {"1": held.fence}, LEASE) == set()

    play(own_database, scenario)


def test_c3_what_waits_for_its_retry_is_kept_until_that_is_long_overdue(own_database: str) -> None:
    """Its checkpoint and its fence, however long ago it began to wait."""

    async def scenario(store: PostgresStore) -> None:
        held = await store.claim(CLAIM, LEASE, MAX)
        assert isinstance(held, Held)
        await store.save("shop", "1", held.fence, progress(50), LEASE)
        assert await store.wait("shop", "1", held.fence, LEASE)
        await store.purge("shop", OVER / 2)
        retry = await store.claim(replace(CLAIM, retries=1), LEASE, MAX)
        assert isinstance(retry, Held)
        assert retry.fence > held.fence
        assert retry.progress == progress(50)
        assert await store.wait("shop", "1", retry.fence, OVER)
        await store.purge("shop", OVER / 2)
        assert await store.list_tasks("shop", None, 10) == []

    play(own_database, scenario)


def test_c3_a_dead_task_is_swept_until_those_who_wait_are_told(own_database: str) -> None:
    """Whoever was to tell them may have died, or the result backend been away."""

    async def scenario(store: PostgresStore) -> None:
        await store.claim(CLAIM, OVER, 0)
        (first,) = await store.sweep("shop", OVER, 0, 10)
        (again,) = await store.sweep("shop", OVER, 0, 10)
        assert [(each.is_dead, each.losses) for each in (first, again)] == [(True, 1)] * 2
        await store.tell("shop", "1", first.fence)  # somebody else is at it
        (last,) = await store.sweep("shop", OVER, 0, 10)
        await store.tell("shop", "1", last.fence)
        assert await store.sweep("shop", OVER, 0, 10) == []
        assert await store.requeue("shop", "1", OVER) is not None
        (requeued,) = await store.sweep("shop", LEASE, 0, 10)
        assert (requeued.is_dead, requeued.losses) == (False, 0)

    play(own_database, scenario)


def test_c3_tasks_of_two_apps_may_have_the_same_id(own_database: str) -> None:
    """Neither sees, holds, prolongs or ends the other's."""

    async def scenario(store: PostgresStore) -> None:
        ours = await store.claim(CLAIM, LEASE, MAX)
        theirs = await store.claim(replace(CLAIM, app="mail"), LEASE, MAX)
        assert isinstance(ours, Held)
        assert isinstance(theirs, Held)
        assert ours.fence == theirs.fence
        assert await store.save("mail", "1", theirs.fence, progress(50), LEASE) == "saved"
        assert await store.renew("mail", {"1": theirs.fence}, OVER) == {"1"}
        assert await store.sweep("shop", LEASE, MAX, 10) == []
        assert len(await store.sweep("mail", LEASE, MAX, 10)) == 1
        assert await store.end("mail", "1", None)
        (record,) = await store.list_tasks("shop", None, 10)
        assert (record.state, record.percent) == ("running", 0)
        assert await store.release("shop", "1", ours.fence, LEASE)

    play(own_database, scenario)


def test_what_is_deleted_is_deleted_in_parts(own_database: str) -> None:
    """More rows than one statement takes."""

    async def scenario(store: PostgresStore) -> None:
        connection = await asyncpg.connect(own_database)
        await connection.execute(
            "INSERT INTO homeloop_recovery"
            " (app, task_id, name, state, replaced, retries, priority, fence, lease_until, holder)"
            " SELECT 'shop', number, '', 'ended', 0, 0, 0, 1, now(), '' FROM generate_series(1, 2500) number"
        )
        await store.purge("shop", OVER)
        assert await connection.fetchval("SELECT count(*) FROM homeloop_recovery") == 0
        await connection.close()

    play(own_database, scenario)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "needs one database"),
        ({"dsn": "postgresql://", "table": "a; drop table b"}, "no table's name"),
    ],
)
def test_a_store_without_a_place_is_refused(arguments, reason: str) -> None:
    """At once, where it is made."""
    with pytest.raises(ConfigurationError, match=reason):
        PostgresStore(**arguments)
