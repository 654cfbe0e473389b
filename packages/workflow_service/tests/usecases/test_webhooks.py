"""Webhooks from the ending of a run to its receiver, with the database and real requests between."""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar

import asyncpg
import pytest

from workflow_service.domain.run import NewRun, Run
from workflow_service.domain.webhook import DeliveryStatus, DueDelivery, Outcome
from workflow_service.external.addresses import AddressPolicy
from workflow_service.external.webhooks import SignedWebhooks
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.gateways.postgres.webhooks import PostgresWebhookStore
from workflow_service.ports import StoreUnavailableError
from workflow_service.usecases import webhooks as webhooks_module
from workflow_service.usecases.webhooks import AT_ONCE, PER_USER, deliver_forever

pytestmark = pytest.mark.needs("postgres")
WithPool = Callable[[Callable[[Any], Awaitable[Any]]], Any]
SENDER = SignedWebhooks(["a secret for these tests"], AddressPolicy(["127.0.0.1"]), 5)


async def end_run(pool: asyncpg.Pool, url: str | None, user_id: str = "alice", error: bool = False) -> Run:
    """Let a run of a user end."""
    runs = PostgresRunStore(pool.acquire)
    options = {} if url is None else {"webhook_url": url}
    run, _ = await runs.create(NewRun(user_id, "scripted", {"secret": "input"}, options))
    claim = await runs.claim(run.id, "worker", 60)
    assert claim is not None
    if error:
        await runs.fail(claim, {"type": "WorkflowError", "message": "no"})
    else:
        await runs.succeed(claim, {"large": "result"})
    return run


@asynccontextmanager
async def delivering(pool: asyncpg.Pool, **changes: Any) -> AsyncIterator[PostgresWebhookStore]:
    """Deliver while the body runs."""
    store = PostgresWebhookStore(pool.acquire)
    arguments = {"webhooks": store, "sender": SENDER, "attempts": 10, "lease": 60, "interval": 0.01, **changes}
    task = asyncio.create_task(deliver_forever(**arguments))
    try:
        yield store
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Wait for something true; the test's bound is the pool's."""
    while not (found := await look()):  # noqa: ASYNC110  the database has no event
        await asyncio.sleep(0.01)
    return found


async def due_now(pool: asyncpg.Pool) -> None:
    """Let every pause be over."""
    await pool.execute(
        "UPDATE workflow.webhook_deliveries SET next_attempt_at = clock_timestamp() "
        "WHERE next_attempt_at IS NOT NULL"
    )


def test_a_run_that_asks_for_it_has_its_ending_told(with_pool: WithPool, receiver: Any) -> None:
    """What ended and how, without input and result; a run that does not ask is silent."""

    async def scenario(pool: asyncpg.Pool) -> None:
        await end_run(pool, None)
        good = await end_run(pool, receiver.url)
        bad = await end_run(pool, receiver.url, error=True)
        async with delivering(pool) as store:
            delivered = await until(lambda: store.list_recent("alice", 9, status=DeliveryStatus.DELIVERED))
            delivered = await until(
                lambda: _at_least(2, store.list_recent("alice", 9, status=DeliveryStatus.DELIVERED))
            )
        assert [(each.run_id, each.event) for each in delivered] == [
            (bad.id, "run.failed"),
            (good.id, "run.succeeded"),
        ]
        bodies = {json.loads(each.body)["type"]: json.loads(each.body) for each in receiver.received}
        assert bodies["run.succeeded"]["data"] == {
            "run_id": str(good.id),
            "workflow_name": "scripted",
            "status": "succeeded",
            "seq": 3,
            "attempt": 1,
            "error": None,
        }
        assert bodies["run.failed"]["data"]["error"] == {"type": "WorkflowError", "message": "no"}
        assert datetime.fromisoformat(bodies["run.failed"]["timestamp"]).tzinfo is not None
        first = delivered[-1]
        assert (first.attempts, first.last_status, first.last_error, first.next_attempt_at) == (1, 204, None, None)
        assert first.finished_at is not None
        assert len(receiver.received) == 2

    with_pool(scenario)


async def _at_least(count: int, looking: Awaitable[Any]) -> Any:
    found = await looking
    return found if len(found) >= count else None


def test_failed_attempts_are_repeated_with_the_same_id_and_then_given_up(
    with_pool: WithPool, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The user sees why it fails and when it is tried again; a person can have it sent again."""
    caplog.set_level(logging.WARNING)

    async def scenario(pool: asyncpg.Pool) -> None:
        receiver.answers = [500, 503]
        await end_run(pool, receiver.url)
        async with delivering(pool, attempts=2) as store:

            async def look(attempts: int, status: DeliveryStatus) -> Any:
                (delivery,) = await store.list_recent("alice", 9)
                is_there = delivery.attempts == attempts and delivery.status is status and delivery.last_error
                return delivery if is_there else None

            first = await until(lambda: look(1, DeliveryStatus.PENDING))
            assert (first.last_status, first.last_error) == (500, "the receiver answered 500")
            assert first.next_attempt_at is not None
            assert 4 < (first.next_attempt_at - first.created_at).total_seconds() < 60
            await due_now(pool)
            second = await until(lambda: look(2, DeliveryStatus.FAILED))
            assert (second.last_status, second.next_attempt_at) == (503, None)
            assert f"webhook {first.id} is given up: the receiver answered 503" in caplog.text
            assert await store.send_again("bob", first.id) is None
            again = await store.send_again("alice", first.id)
            assert again is not None
            assert (again.status, again.attempts) == (DeliveryStatus.PENDING, 0)
            await until(lambda: _at_least(1, store.list_recent("alice", 9, status=DeliveryStatus.DELIVERED)))
        assert {each.headers["webhook-id"] for each in receiver.received} == {str(first.id)}
        assert len(receiver.received) == 3

    with_pool(scenario)


def test_410_is_the_last_word(with_pool: WithPool, receiver: Any) -> None:
    """It is not tried again."""

    async def scenario(pool: asyncpg.Pool) -> None:
        receiver.answers = [410]
        await end_run(pool, receiver.url)
        async with delivering(pool) as store:
            (failed,) = await until(lambda: store.list_recent("alice", 9, status=DeliveryStatus.FAILED))
        assert (failed.attempts, failed.last_status) == (1, 410)

    with_pool(scenario)


def test_a_delivery_whose_sender_fell_silent_is_sent_again(with_pool: WithPool, receiver: Any) -> None:
    """After the lease, by whoever looks; the outcome of the attempt before it no longer counts."""

    async def scenario(pool: asyncpg.Pool) -> None:
        store = PostgresWebhookStore(pool.acquire)
        await end_run(pool, receiver.url)
        (lost,) = await store.take_due(10, 10, {}, 60)
        assert lost.attempt == 1
        assert list(await store.take_due(10, 10, {}, 60)) == []
        await due_now(pool)
        (again,) = await store.take_due(10, 10, {}, 60)
        assert (again.id, again.attempt, again.body) == (lost.id, 2, lost.body)
        await store.record(lost, Outcome(500, "late"), None)
        (delivery,) = await store.list_recent("alice", 9)
        assert (delivery.status, delivery.last_error) == (DeliveryStatus.PENDING, None)
        await store.record(again, Outcome(204), None)
        await store.record(again, Outcome(500, "twice"), None)
        (delivery,) = await store.list_recent("alice", 9)
        assert (delivery.status, delivery.last_error) == (DeliveryStatus.DELIVERED, None)

    with_pool(scenario)


def test_silent_receivers_of_one_user_hold_up_nobody_else(with_pool: WithPool, receiver: Any) -> None:
    """Of one user a few are under way at a time; another user's is sent beside them."""

    async def scenario(pool: asyncpg.Pool) -> None:
        under_way: list[DueDelivery] = []
        is_full = asyncio.Event()
        release = asyncio.Event()

        class SlowForAlice(SignedWebhooks):
            async def send(self, delivery: DueDelivery) -> Outcome:
                if delivery.user_id == "alice":
                    under_way.append(delivery)
                    if len(under_way) == PER_USER:
                        is_full.set()
                    await release.wait()
                return await SENDER.send(delivery)

        for _ in range(PER_USER + 2):
            await end_run(pool, receiver.url)
        slow = SlowForAlice(["a secret for these tests"], AddressPolicy(), 5)
        async with delivering(pool, sender=slow) as store:
            await is_full.wait()
            await end_run(pool, receiver.url, "bob")
            await until(lambda: store.list_recent("bob", 9, status=DeliveryStatus.DELIVERED))
            assert len(under_way) == PER_USER
            release.set()
            await until(
                lambda: _at_least(PER_USER + 2, store.list_recent("alice", 9, status=DeliveryStatus.DELIVERED))
            )
        assert AT_ONCE > PER_USER

    with_pool(scenario)


def test_of_one_user_never_more_are_under_way(with_pool: WithPool, receiver: Any) -> None:
    """However they end: those that are under way count when the next ones are taken."""

    async def scenario(pool: asyncpg.Pool) -> None:
        held: list[asyncio.Event] = []
        now = most = 0

        class Held(SignedWebhooks):
            async def send(self, delivery: DueDelivery) -> Outcome:
                nonlocal now, most
                now += 1
                most = max(most, now)
                held.append(release := asyncio.Event())
                await release.wait()
                now -= 1
                return Outcome(204)

        for _ in range(3 * PER_USER):
            await end_run(pool, receiver.url)
        sender = Held(["a secret for these tests"], AddressPolicy(), 5)
        async with delivering(pool, sender=sender) as store:
            for left in range(3 * PER_USER, 0, -1):
                while len(held) < min(PER_USER, left):  # noqa: ASYNC110  the use case has no event
                    await asyncio.sleep(0.01)
                held.pop(0).set()
            done = await until(
                lambda: _at_least(3 * PER_USER, store.list_recent("alice", 99, status=DeliveryStatus.DELIVERED))
            )
        assert len(done) == 3 * PER_USER
        assert most == PER_USER

    with_pool(scenario)


def test_thousands_for_a_dead_receiver_hold_up_nobody_else(with_pool: WithPool, receiver: Any) -> None:
    """It refuses at once, so that a few are always due and few under way: who is served waits for the others."""

    async def scenario(pool: asyncpg.Pool) -> None:
        refused: list[DueDelivery] = []

        class DeadForAlice(SignedWebhooks):
            async def send(self, delivery: DueDelivery) -> Outcome:
                if delivery.user_id != "alice":
                    return await SENDER.send(delivery)
                refused.append(delivery)
                return Outcome(error="the host cannot be reached, or broke off")

        run = await end_run(pool, receiver.url)
        await pool.execute(
            "INSERT INTO workflow.webhook_deliveries (run_id, seq, user_id, url, event, body, next_attempt_at) "
            "SELECT run_id, seq + number, user_id, url, event, body, next_attempt_at - interval '1 hour' "
            "FROM workflow.webhook_deliveries, generate_series(1, 2000) AS number WHERE run_id = $1",
            run.id,
        )
        await end_run(pool, receiver.url, "bob")
        dead = DeadForAlice(["a secret for these tests"], AddressPolicy(["127.0.0.1"]), 5)
        async with delivering(pool, sender=dead, interval=60) as store:  # it looks when one has ended
            await until(lambda: store.list_recent("bob", 9, status=DeliveryStatus.DELIVERED))
            assert len(refused) < 100

    with_pool(scenario)


def test_users_who_fill_every_place_hold_up_nobody_else(
    with_pool: WithPool, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing has ended between two looks: whoever waits has the first place that comes free."""
    looks = 0
    take = webhooks_module._take

    async def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return await take(*arguments)

    async def scenario(pool: asyncpg.Pool) -> None:
        held: list[asyncio.Event] = []
        began: list[str] = []

        class Held(SignedWebhooks):
            async def send(self, delivery: DueDelivery) -> Outcome:
                began.append(delivery.user_id)
                held.append(release := asyncio.Event())
                await release.wait()
                return Outcome(204)

        async def until_began(count: int) -> None:
            while len(began) < count:  # noqa: ASYNC110  the use case has no event
                await asyncio.sleep(0.01)

        for user in range(AT_ONCE // PER_USER):
            for _ in range(PER_USER + 1):
                await end_run(pool, receiver.url, f"slow {user}")
        await end_run(pool, receiver.url, "bob")
        async with delivering(pool, sender=Held(["a secret for these tests"], AddressPolicy(), 5)):
            await until_began(AT_ONCE)
            seen = looks
            while looks < seen + 3:  # noqa: ASYNC110  likewise
                await asyncio.sleep(0.01)
            held[0].set()
            await until_began(AT_ONCE + 1)
            assert began[-1] == "bob"

    monkeypatch.setattr(webhooks_module, "_take", counted)
    with_pool(scenario)


def test_a_database_that_is_away_ends_nothing(
    with_pool: WithPool, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Looks and outcomes that fail are told in the log; what is due is sent once the database is back."""

    async def scenario(pool: asyncpg.Pool) -> None:
        class Flaky(PostgresWebhookStore):
            faults: ClassVar[list[Exception]] = [StoreUnavailableError("away"), LookupError("a bug")]

            async def take_due(self, *arguments: Any) -> Any:
                if self.faults:
                    raise self.faults.pop(0)
                return await super().take_due(*arguments)

        await end_run(pool, receiver.url)
        store = Flaky(pool.acquire)
        async with delivering(pool, webhooks=store):
            await until(lambda: store.list_recent("alice", 9, status=DeliveryStatus.DELIVERED))

    with caplog.at_level(logging.WARNING):
        with_pool(scenario)
    assert "webhooks: away" in caplog.text
    assert "a look failed" in caplog.text


def test_a_delivery_that_cannot_be_sent_is_given_up(
    with_pool: WithPool, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong with it counts as an attempt, so that it does not come again after each lease."""

    async def scenario(pool: asyncpg.Pool) -> None:
        class Broken(SignedWebhooks):
            async def send(self, delivery: DueDelivery) -> Outcome:
                raise LookupError("a bug")

        await end_run(pool, receiver.url)
        broken = Broken(["a secret for these tests"], AddressPolicy(), 5)
        async with delivering(pool, sender=broken, attempts=1) as store:
            (failed,) = await until(lambda: store.list_recent("alice", 9, status=DeliveryStatus.FAILED))
        assert (failed.attempts, failed.last_error) == (1, "it could not be sent; the log of the service says why")

    with_pool(scenario)
    assert "attempt 1 failed unexpectedly" in caplog.text


def test_the_end_of_the_process_breaks_off_what_is_under_way(with_pool: WithPool, receiver: Any) -> None:
    """At once, and without a task left; the delivery is due again after its lease."""

    async def scenario(pool: asyncpg.Pool) -> None:
        receiver.gate = threading.Event()
        await end_run(pool, receiver.url)
        async with delivering(pool) as store:
            assert await asyncio.to_thread(receiver.arrived.wait, 20)
        (delivery,) = await store.list_recent("alice", 9)
        assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 1)
        assert not [task for task in asyncio.all_tasks() if "webhook" in task.get_name()]

    with_pool(scenario)


def test_lists_have_a_cursor_and_filters(with_pool: WithPool, receiver: Any) -> None:
    """Newest first; nobody else's."""

    async def scenario(pool: asyncpg.Pool) -> None:
        ended = [await end_run(pool, receiver.url) for _ in range(3)]
        await end_run(pool, receiver.url, "bob")
        store = PostgresWebhookStore(pool.acquire)
        found = await store.list_recent("alice", 9)
        assert [each.run_id for each in found] == [run.id for run in reversed(ended)]
        assert [each.id for each in await store.list_recent("alice", 9, found[0].id)] == [
            each.id for each in found[1:]
        ]
        assert len(await store.list_recent("alice", 9, run_id=ended[0].id)) == 1
        assert not await store.list_recent("alice", 9, status=DeliveryStatus.FAILED)
        assert not await store.list_recent("bob", 9, run_id=ended[0].id)

    with_pool(scenario)
