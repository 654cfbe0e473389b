"""Execute a run: how it ends, who may write, and what a stop or a loss leaves."""

import asyncio
import json
import logging
import threading
from contextlib import nullcontext

import pytest

from workflow_service.domain.run import EventKind, NewRun, RunStatus
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import (
    InvalidInputError,
    ModelUnavailableError,
    ProcessLostError,
    StoreUnavailableError,
    WorkflowError,
)
from workflow_service.usecases import execution as execution_module

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "scripted", {})


def test_a_run_that_works_leaves_its_steps_and_result(execute, with_pool, scripted):
    """Steps, then the result, in order; a second message for the run does nothing."""
    calls = []

    async def body(report):
        calls.append(1)
        await report("parse", 30, "Reading")
        await report("judge", 90, "Judging")
        return {"answer": 42}

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        await execute(store, run, scripted(body))
        ended = await store.get("alice", run.id)
        result = json.loads(await store.result("alice", run.id))
        assert (ended.status, result, ended.attempt, calls) == (RunStatus.SUCCEEDED, {"answer": 42}, 1, [1])
        history = [(event.kind.value, event.data.get("step")) for event in await store.events("alice", run.id)]
        assert history == [
            ("queued", None),
            ("started", None),
            ("progress", "parse"),
            ("progress", "judge"),
            ("succeeded", None),
        ]

    with_pool(scenario)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (WorkflowError("no text in it"), {"type": "WorkflowError", "message": "no text in it"}),
        (InvalidInputError("no id"), {"type": "InvalidInputError", "message": "no id"}),
        (KeyError("secret"), {"type": "KeyError"}),
        (ExceptionGroup("two", [ValueError("a"), ValueError("b")]), {"type": "ExceptionGroup"}),
    ],
)
def test_what_a_workflow_raises_ends_the_run_as_failed(execute, with_pool, scripted, caplog, raised, error):
    """A fault of the input is told in its own words and not logged; of any other the log has the details."""
    is_fault_of_input = isinstance(raised, WorkflowError | InvalidInputError)

    async def body(_report):
        raise raised

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        ended = await store.get("alice", run.id)
        assert ended.status is RunStatus.FAILED
        assert error.items() <= ended.error.items()
        assert ended.error.keys() == {"type", "message"}
        assert (await store.events("alice", run.id))[-1].data == ended.error
        if not is_fault_of_input:
            assert str(raised) not in ended.error["message"]
            assert str(run.id) in ended.error["message"]

    with_pool(scenario)
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == (not is_fault_of_input)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (StoreUnavailableError("db.internal:5432 away"), "the database did not answer"),
        (ModelUnavailableError("the model did not answer"), "the model did not answer"),
        (ProcessLostError("the process ended"), "the process ended"),
    ],
)
def test_what_was_away_leads_to_another_attempt_and_in_the_end_to_a_dead_run(
    execute, with_pool, scripted, raised, told
):
    """A blip is no failure: another attempt follows after a pause; after too many the run waits for a person."""
    calls = []

    async def body(_report):
        calls.append(1)
        raise raised

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, max_losses=2, pause=0, resend_after=60)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        assert (await store.get("alice", run.id)).status is RunStatus.QUEUED
        assert await store.requeue_lost(10) == [run.id], "the reaper tells the broker of it"
        await execute(store, run, scripted(body))
        ended = await store.get("alice", run.id)
        assert (ended.status, ended.error["message"], ended.can_resume) == (RunStatus.DEAD, told, True)
        kinds = [event.kind.value for event in await store.events("alice", run.id)]
        assert kinds == ["queued", "started", "requeued", "started", "dead"]
        assert len(calls) == 2

    with_pool(scenario)


def test_a_run_that_pauses_is_not_claimed_before_its_time(execute, with_pool, scripted):
    """A message that comes early, or again, does not shorten the pause."""

    async def body(_report):
        raise StoreUnavailableError("away")

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, pause=60)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        assert await store.claim(run.id, "worker", 60) is None
        assert await store.requeue_lost(10) == []

    with_pool(scenario)


class WatchedStore(PostgresRunStore):
    """A store that tells when a renewal came back, and holds a written ending until one was refused."""

    def __init__(self, connect):
        super().__init__(connect)
        self.renewed = threading.Event()
        self.refused = asyncio.Event()

    async def renew(self, claim, lease):
        standing = await super().renew(claim, lease)
        (self.renewed if standing.is_held else self.refused).set()
        return standing

    async def succeed(self, claim, result):
        await super().succeed(claim, result)
        await self.refused.wait()


def test_the_lease_is_renewed_while_the_ending_is_written(execute, with_pool, scripted, caplog):
    """While a large result is encoded the loop goes on; the renewal that the ending refuses is no loss."""
    seen = []

    async def scenario(pool):
        store = WatchedStore(pool.acquire)
        run, _ = await store.create(NEW)

        class LargeResult(dict):
            """Is encoded when the lease was renewed, and not before."""

            def items(self):
                store.renewed.clear()
                seen.append(store.renewed.wait(10))
                return super().items()

        async def body(_report):
            return LargeResult(text="x" * 1_000_000)

        await execute(store, run, scripted(body), lease=0.6)
        assert await pool.fetchval("SELECT result ->> 'text' FROM workflow.runs") == "x" * 1_000_000

    with_pool(scenario)
    assert seen == [True]
    assert caplog.records == []


@pytest.mark.parametrize("result", [{"x": float("inf")}, {"x": object()}, None])
def test_a_result_that_is_no_json_ends_the_run_as_failed(execute, with_pool, scripted, result):
    """A workflow that returns what cannot be stored fails; its run does not hang until the lease is over."""

    async def body(_report):
        return result

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        assert (await store.get("alice", run.id)).status is RunStatus.FAILED

    with_pool(scenario)


def test_a_worker_without_the_workflow_fails_the_run(execute, with_pool):
    """A run of a workflow this worker does not have is failed with the name of what is missing."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, {})
        assert "'scripted'" in (await store.get("alice", run.id)).error["message"]

    with_pool(scenario)


def test_a_stopped_worker_gives_its_run_back_and_the_next_goes_on(execute, with_pool, scripted):
    """Cancellation reaches the workflow, re-raises, queues the run; after a second try no step stands twice."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        working = asyncio.Event()
        cleaned = []

        async def stuck(report):
            await report("parse", 50, "")
            working.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)

        async def whole(report):
            await report("parse", 50, "")
            await report("judge", 90, "")
            return {}

        execution = asyncio.create_task(execute(store, run, scripted(stuck)))
        await working.wait()
        execution.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execution
        assert cleaned == [True]
        assert (await store.get("alice", run.id)).status is RunStatus.QUEUED
        await execute(store, run, scripted(whole))
        kinds = [event.kind for event in await store.events("alice", run.id)]
        assert kinds == [
            EventKind.QUEUED,
            EventKind.STARTED,
            EventKind.PROGRESS,
            EventKind.REQUEUED,
            EventKind.STARTED,
            EventKind.PROGRESS,
            EventKind.SUCCEEDED,
        ]

    with_pool(scenario)


def test_the_lease_is_renewed_while_the_workflow_works(execute, with_pool, scripted):
    """A run that lasts many leases is never taken for lost."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)

        async def body(_report):
            seen = set()
            while len(seen) < 4:
                seen.add(await pool.fetchval("SELECT lease_until FROM workflow.runs"))
                await pool.execute("SELECT pg_sleep(0.01)")
            return {}

        await execute(store, run, scripted(body), lease=0.6)
        assert (await store.get("alice", run.id)).status is RunStatus.SUCCEEDED

    with_pool(scenario)


def test_a_worker_whose_run_was_taken_over_stops_without_a_word(execute, with_pool, scripted, caplog):
    """The loss of the claim cancels the workflow, nothing is written, nothing is raised, one line is logged."""
    caplog.set_level(logging.WARNING, "workflow_service")

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        cleaned = []

        async def body(_report):
            try:
                # In one step: the heartbeat stops the worker as soon as it sees the one half or the other.
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute(
                        "UPDATE workflow.runs SET lease_until = clock_timestamp() - interval '1 s'"
                    )
                    assert await PostgresRunStore(lambda: nullcontext(connection)).claim(run.id, "other", 60)
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)

        await execute(store, run, scripted(body), lease=0.3)
        assert cleaned == [True]
        now = await store.get("alice", run.id)
        assert (now.status, now.attempt) == (RunStatus.RUNNING, 2)
        assert len(await store.events("alice", run.id)) == 3

    with_pool(scenario)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("when", ["report", "result", "error"])
def test_a_taken_over_worker_that_writes_first_stops_as_well(execute, with_pool, scripted, when):
    """Whichever write meets the loss before the heartbeat does, it is refused and the worker stops silently."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)

        async def body(report):
            await pool.execute("UPDATE workflow.runs SET lease_until = clock_timestamp() - interval '1 s'")
            assert await store.claim(run.id, "other", 60)
            if when == "report":
                await report("late", 50, "")
            if when == "error":
                raise ValueError
            return {}

        await execute(store, run, scripted(body))
        assert (await store.get("alice", run.id)).status is RunStatus.RUNNING
        assert len(await store.events("alice", run.id)) == 3

    with_pool(scenario)


class UnreachableStore(PostgresRunStore):
    """A store whose database goes away for renewals, or for good."""

    failures = float("inf")
    can_end = True

    async def renew(self, claim, lease):
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailableError("away")
        return await super().renew(claim, lease)

    async def fail(self, claim, error):
        if not self.can_end:
            raise StoreUnavailableError("away")
        await super().fail(claim, error)


def test_a_renewal_that_fails_is_tried_again(execute, with_pool, scripted):
    """One lost renewal is no lost run."""

    async def scenario(pool):
        store = UnreachableStore(pool.acquire)
        store.failures = 1
        run, _ = await store.create(NEW)

        async def body(_report):
            first = await pool.fetchval("SELECT lease_until FROM workflow.runs")
            while first == await pool.fetchval("SELECT lease_until FROM workflow.runs"):
                await pool.execute("SELECT pg_sleep(0.01)")
            return {}

        await execute(store, run, scripted(body), lease=0.6)
        assert (await store.get("alice", run.id)).status is RunStatus.SUCCEEDED

    with_pool(scenario)


def test_a_lease_that_cannot_be_renewed_in_time_stops_the_worker(execute, with_pool, scripted):
    """When the database is away for a whole lease the workflow is cancelled: another worker may have the run."""

    async def scenario(pool):
        store = UnreachableStore(pool.acquire)
        run, _ = await store.create(NEW)

        async def body(_report):
            await asyncio.Event().wait()

        await execute(store, run, scripted(body), lease=0.15)
        assert await store.requeue_lost(1) == [run.id]

    with_pool(scenario)


def test_a_database_that_is_away_at_the_end_is_raised(execute, with_pool, scripted):
    """An ending that could not be written is not swallowed: the caller hears of it and the lease runs out."""

    async def scenario(pool):
        store = UnreachableStore(pool.acquire)
        store.can_end = False
        run, _ = await store.create(NEW)

        async def body(_report):
            raise ValueError

        with pytest.raises(StoreUnavailableError):
            await execute(store, run, scripted(body))
        assert (await store.get("alice", run.id)).status is RunStatus.RUNNING

    with_pool(scenario)


def test_a_stopping_worker_does_not_wait_for_a_database_that_is_silent(
    execute, with_pool, scripted, monkeypatch, caplog
):
    """However long the lease, giving the run back has a bound; that it was not given back is one line."""
    monkeypatch.setattr(execution_module, "GIVE_BACK_BOUND", 0.05)
    begun = asyncio.Event()

    async def body(_report):
        begun.set()
        await asyncio.Event().wait()

    async def never(_claim):
        await asyncio.Event().wait()

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        store.release = never
        run, _ = await store.create(NEW)
        working = asyncio.create_task(execute(store, run, scripted(body), lease=3600.0))
        await begun.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert (await store.get("alice", run.id)).status is RunStatus.RUNNING

    with_pool(scenario)
    [told] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "not given back, its lease will run out" in told.getMessage()
    assert told.exc_info is None
