"""Submit and reap: what is committed is executed, whatever happens to the broker."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from workflow_service.domain.run import NewRun, RunStatus
from workflow_service.external.addresses import AddressPolicy
from workflow_service.external.webhooks import SignedWebhooks
from workflow_service.gateways.postgres.documents import PostgresDocumentStore
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import InvalidInputError, StoreUnavailableError
from workflow_service.usecases.reaping import reap, reap_forever
from workflow_service.usecases.submission import submit_run

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "scripted", {"text": "ok"})
NO_WEBHOOKS = SignedWebhooks([], AddressPolicy(), 5)


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return {"x": value}


def test_a_run_is_committed_before_it_is_enqueued(with_pool, scripted, queue):
    """When the broker hears of a run, the run is in the database."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        seen = []

        class Queue:
            async def enqueue(self, run_id):
                seen.append(await pool.fetchval("SELECT status FROM workflow.runs WHERE id = $1", run_id))

        run, is_new = await submit_run(
            NEW,
            runs=store,
            queue=Queue(),
            workflows=scripted(None),
            documents=PostgresDocumentStore(pool.acquire),
            webhooks=NO_WEBHOOKS,
        )
        assert is_new
        assert seen == ["queued"]
        assert run.status is RunStatus.QUEUED

    with_pool(scenario)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workflow_name": "unknown"}, "known: scripted"),
        ({"input_data": {"bad": True}}, "input_data.bad"),
        ({"input_data": {"a": ["b\0"]}}, r"input_data\.a\[0\] holds a NUL"),
        ({"input_data": {"a\0": 1}}, "a key in input_data holds a NUL"),
        ({"input_data": {"a": "\ud800"}}, "surrogate"),
        ({"input_data": {"a": float("nan")}}, "nan"),
        ({"input_data": {"a": float("inf")}}, "inf"),
        ({"input_data": nested(100)}, "nested deeper"),
        ({"options": {"o": "\0"}}, r"options\.o holds a NUL"),
    ],
)
def test_input_that_cannot_be_worked_on_or_stored_is_refused(with_pool, scripted, queue, change, says):
    """The error says where and what; nothing is written and nobody is told."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        with pytest.raises(InvalidInputError, match=says):
            await submit_run(
                replace(NEW, **change),
                runs=store,
                queue=queue,
                workflows=scripted(None),
                documents=PostgresDocumentStore(pool.acquire),
                webhooks=NO_WEBHOOKS,
            )
        assert await pool.fetchval("SELECT count(*) FROM workflow.runs") == 0
        assert queue.sent == []

    with_pool(scenario)


def test_however_many_documents_are_named_the_store_is_asked_once(with_pool, scripted, queue):
    """A body has room for thousands of ids; each that there is not is told, and another user's is one of them."""

    async def scenario(pool):
        sessions = 0

        def counted():
            nonlocal sessions
            sessions += 1
            return pool.acquire()

        documents = PostgresDocumentStore(counted)
        mine = (await documents.save("alice", "a.txt", "text/plain", b"a")).id
        others = (await documents.save("bob", "b.txt", "text/plain", b"b")).id
        workflows = scripted(None)
        items = {"type": "array", "items": {"type": "string", "format": "document-id"}}
        workflows["scripted"].input_schema = {"type": "object", "properties": {"files": items}}
        files = [str(mine), str(others), str(mine), *(str(uuid4()) for _ in range(50))]
        sessions = 0
        with pytest.raises(InvalidInputError) as refused:
            await submit_run(
                replace(NEW, input_data={"files": files}),
                runs=PostgresRunStore(pool.acquire),
                queue=queue,
                workflows=workflows,
                documents=documents,
                webhooks=NO_WEBHOOKS,
            )
        places = [place for place, _ in refused.value.faults]
        assert places == [f"input_data.files[{at}]" for at in (1, *range(3, 53))]
        assert sessions == 1

    with_pool(scenario)


def test_a_repeated_submission_is_not_enqueued_again(with_pool, scripted, queue):
    """A hundred requests with one idempotency key send one message."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        new = replace(NEW, idempotency_key="k")
        answers = await asyncio.gather(
            *(
                submit_run(
                    new,
                    runs=store,
                    queue=queue,
                    workflows=scripted(None),
                    documents=PostgresDocumentStore(pool.acquire),
                    webhooks=NO_WEBHOOKS,
                )
                for _ in range(100)
            )
        )
        assert queue.sent == [answers[0][0].id]
        assert {run.id for run, _ in answers} == set(queue.sent)

    with_pool(scenario)


def test_a_broker_that_is_away_costs_the_caller_nothing(with_pool, scripted, queue):
    """Submitting works without a broker; when it is back, the reaper tells it of every run, once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=0)
        queue.capacity = 0
        ids = [
            (
                await submit_run(
                    NEW,
                    runs=store,
                    queue=queue,
                    workflows=scripted(None),
                    documents=PostgresDocumentStore(pool.acquire),
                    webhooks=NO_WEBHOOKS,
                )
            )[0].id
            for _ in range(3)
        ]
        assert await reap(runs=store, queue=queue) == 0
        queue.capacity = 1
        assert await reap(runs=store, queue=queue) == 1
        queue.capacity = 99
        patient = PostgresRunStore(pool.acquire, resend_after=60)  # returns only what is marked as not sent
        assert await reap(runs=patient, queue=queue) == 2
        assert await reap(runs=patient, queue=queue) == 0
        assert sorted(queue.sent) == sorted(ids)

    with_pool(scenario)


def test_a_process_that_dies_between_commit_and_enqueue_loses_nothing(with_pool, queue):
    """A run that nobody was told of is enqueued by the reaper."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=0)
        run, _ = await store.create(NEW)  # and here the process was killed
        assert await reap(runs=store, queue=queue) == 1
        assert queue.sent == [run.id]

    with_pool(scenario)


def test_the_reaper_goes_on_after_any_failure(caplog):
    """A database that is away, or a fault of ours, does not end the loop; cancellation does."""
    calls = []

    class Store:
        async def requeue_lost(self, limit):
            calls.append(limit)
            if len(calls) == 1:
                raise StoreUnavailableError("away")
            if len(calls) == 2:
                raise ZeroDivisionError
            if len(calls) == 3:
                enough.set()
            return []

    enough = asyncio.Event()

    async def scenario():
        reaper = asyncio.create_task(reap_forever(runs=Store(), queue=None, interval=0))
        await enough.wait()
        reaper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reaper

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records[:2]] == ["WARNING", "ERROR"]
