"""Runs in PostgreSQL: fencing, order, idempotency, and what is sent again."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_service.domain.run import Claim, EventKind, NewRun, Progress, RunStatus, Standing
from workflow_service.gateways.postgres import run_statements
from workflow_service.gateways.postgres.connection import encode_json, open_service_session, open_session
from workflow_service.gateways.postgres.run_statistics import UNFINISHED
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import (
    ClaimLostError,
    IdempotencyConflictError,
    InvalidInputError,
    StoreUnavailableError,
)

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "review", {"document": "d1", "n": [1, 2.5, None, True]}, {"fast": True})


def test_a_run_comes_back_as_it_was_asked_for(with_pool):
    """A created run is queued, keeps input and options as they were, and has one event."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, is_new = await store.create(NEW)
        assert is_new
        assert (run.status, run.attempt) == (RunStatus.QUEUED, 0)
        assert await store.result("alice", run.id) is None
        assert await store.get("alice", run.id) == run
        assert (run.input_data, run.options) == (NEW.input_data, NEW.options)
        [event] = await store.events("alice", run.id)
        assert (event.seq, event.kind) == (1, EventKind.QUEUED)

    with_pool(scenario)


def test_another_user_sees_nothing_of_a_run(with_pool):
    """A run's row, events and place in lists are its owner's only."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        assert await store.get("mallory", run.id) is None
        assert await store.events("mallory", run.id) == []
        claim = await store.claim(run.id, "worker", 60)
        await store.succeed(claim, {"secret": 1})
        assert await store.result("mallory", run.id) is None
        assert await store.list_recent("mallory", 10) == []
        with pytest.raises(InvalidInputError, match=f"there is no run {run.id}"):
            await store.list_recent("mallory", 10, before=run.id)

    with_pool(scenario)


def test_of_claims_that_race_exactly_one_wins(with_pool):
    """Ten workers that claim one run at once: one gets it, and it is started once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        for _ in range(5):
            run, _ = await store.create(NEW)
            claims = await asyncio.gather(*(store.claim(run.id, f"worker {n}", 60) for n in range(10)))
            [claim] = [claim for claim in claims if claim is not None]
            assert claim.run.attempt == 1
            kinds = [event.kind for event in await store.events("alice", run.id)]
            assert kinds == [EventKind.QUEUED, EventKind.STARTED]

    with_pool(scenario)


def test_an_outdated_claim_can_write_nothing(with_pool, expire):
    """After a second claim each write of the first holder is refused, and leaves no trace."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        first = await store.claim(run.id, "first", 60)
        assert await store.claim(run.id, "second", 60) is None
        await expire(pool, run.id)
        second = await store.claim(run.id, "second", 60)
        assert second.run.attempt == 2
        before = await store.events("alice", run.id)
        for write in (
            store.record_progress(first, Progress("parse", 10, "")),
            store.succeed(first, {}),
            store.fail(first, {"type": "E", "message": ""}),
            store.release(first),
        ):
            with pytest.raises(ClaimLostError, match="attempt 1"):
                await write
        assert await store.renew(first, 60) == Standing(is_held=False)
        assert await store.events("alice", run.id) == before
        assert await store.renew(second, 60) == Standing(is_held=True)
        await store.succeed(second, {"ok": 1})
        ended = await store.get("alice", run.id)
        assert ended.status is RunStatus.SUCCEEDED
        assert json.loads(await store.result("alice", run.id)) == {"ok": 1}

    with_pool(scenario)


def test_a_requeued_run_refuses_its_last_holder_before_anyone_claims_it(with_pool, expire):
    """Between the reaper and the next claim the attempt is the old one, but the run is nobody's."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "first", 60)
        await expire(pool, run.id)
        assert await store.requeue_lost(10) == [run.id]
        assert await store.renew(claim, 60) == Standing(is_held=False)
        with pytest.raises(ClaimLostError):
            await store.succeed(claim, {})

    with_pool(scenario)


@pytest.mark.parametrize("ending", ["succeed", "fail"])
def test_a_finished_run_is_never_claimed_again(with_pool, ending):
    """What is final stays final: no claim, no second ending."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "worker", 60)
        await getattr(store, ending)(claim, {"message": "done"})
        assert await store.claim(run.id, "worker", 60) is None
        with pytest.raises(ClaimLostError):
            await store.succeed(claim, {})
        assert (await store.events("alice", run.id))[-1].kind.is_final
        assert await store.requeue_lost(10) == []

    with_pool(scenario)


def test_a_hundred_submissions_with_one_key_make_one_run(with_pool):
    """An idempotency key names one run, however many requests carry it at once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        new = replace(NEW, idempotency_key="k1")
        answers = await asyncio.gather(*(store.create(new) for _ in range(100)))
        assert len({run.id for run, _ in answers}) == 1
        assert [is_new for _, is_new in answers].count(True) == 1
        assert await pool.fetchval("SELECT count(*) FROM workflow.runs") == 1
        other, is_new = await store.create(replace(new, user_id="bob"))
        assert is_new
        assert other.id != answers[0][0].id

    with_pool(scenario)


@pytest.mark.parametrize("change", [{"workflow_name": "other"}, {"input_data": {}}, {"options": {"fast": False}}])
def test_a_key_cannot_be_used_for_another_request(with_pool, change):
    """A key seen with another workflow, input or options is refused and nothing is written."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        new = replace(NEW, idempotency_key="k1")
        await store.create(new)
        with pytest.raises(IdempotencyConflictError, match="k1"):
            await store.create(replace(new, **change))
        assert await pool.fetchval("SELECT count(*) FROM workflow.runs") == 1

    with_pool(scenario)


def test_a_resumed_run_does_not_record_a_step_twice_nor_go_backwards(with_pool, expire):
    """A step stands once per run, and percent never falls, also when the next worker counts anew."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "first", 60)
        assert await store.record_progress(claim, Progress("parse", 40, "read"))
        assert not await store.record_progress(claim, Progress("parse", 50, "read again"))
        await expire(pool, run.id)
        claim = await store.claim(run.id, "second", 60)
        assert not await store.record_progress(claim, Progress("parse", 40, "read"))
        assert await store.record_progress(claim, Progress("extract", 20, "late"))
        steps = [event.data for event in await store.events("alice", run.id) if event.kind is EventKind.PROGRESS]
        assert [(step["step"], step["percent"]) for step in steps] == [("parse", 40), ("extract", 40)]

    with_pool(scenario)


def test_event_numbers_have_no_gaps_and_follow_commit_order(with_pool):
    """Steps written at once get 1..n, and no reader ever sees a number without all smaller ones."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "worker", 60)
        writing = asyncio.gather(*(store.record_progress(claim, Progress(f"step {n}", n, "")) for n in range(40)))
        while not writing.done():
            seen = [event.seq for event in await store.events("alice", run.id)]
            assert seen == list(range(1, len(seen) + 1))
        assert all(await writing)
        events = await store.events("alice", run.id)
        assert [event.seq for event in events] == list(range(1, 43))
        percents = [event.data["percent"] for event in events[2:]]
        assert percents == sorted(percents)
        assert [event.seq for event in await store.events("alice", run.id, after=40)] == [41, 42]

    with_pool(scenario)


def test_a_lost_run_is_queued_again_and_returned_once(with_pool, expire):
    """The reaper puts a run without a living worker back, says so in its history, and reports it once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        lost, _ = await store.create(NEW)
        alive, _ = await store.create(NEW)
        await store.claim(lost.id, "dead", 60)
        await store.claim(alive.id, "alive", 60)
        await expire(pool, lost.id)
        assert await store.requeue_lost(10) == [lost.id]
        assert await store.requeue_lost(10) == []
        assert (await store.get("alice", lost.id)).status is RunStatus.QUEUED
        last = (await store.events("alice", lost.id))[-1]
        assert (last.kind, last.data) == (EventKind.REQUEUED, {"reason": "worker lost"})

    with_pool(scenario)


def test_a_run_that_was_never_enqueued_is_found_and_then_left_alone(with_pool):
    """A process that died between commit and enqueue costs a few seconds, and no flood of messages follows."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=60)
        run, _ = await store.create(NEW)
        assert await store.requeue_lost(10) == []
        for seconds in (61, 121, 241):  # the wait doubles
            await pool.execute(
                "UPDATE workflow.runs SET sent_at = clock_timestamp() - make_interval(secs => $1)", seconds - 2
            )
            assert await store.requeue_lost(10) == []
            await pool.execute(
                "UPDATE workflow.runs SET sent_at = clock_timestamp() - make_interval(secs => $1)", seconds
            )
            assert await store.requeue_lost(10) == [run.id]
            assert await store.requeue_lost(10) == []

    with_pool(scenario)


def test_a_run_the_broker_did_not_take_is_returned_by_the_next_pass(with_pool):
    """mark_unsent undoes the wait; a run that has left the queue is not touched."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=60)
        queued, _ = await store.create(NEW)
        running, _ = await store.create(NEW)
        await store.claim(running.id, "worker", 60)
        await store.mark_unsent([queued.id, running.id])
        assert await store.requeue_lost(10) == [queued.id]
        assert await store.requeue_lost(10) == []

    with_pool(scenario)


def test_a_released_run_is_returned_by_the_next_pass_and_goes_on(with_pool):
    """A worker that is told to stop costs no lease: the run is there for the next one at once."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=60)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "stopping", 60)
        await store.release(claim)
        assert await store.requeue_lost(10) == [run.id]
        assert (await store.claim(run.id, "next", 60)).run.attempt == 2

    with_pool(scenario)


def test_reapers_that_run_at_once_share_the_work(with_pool, expire):
    """Each lost run is returned to one of ten reapers."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        ids = []
        for _ in range(20):
            run, _ = await store.create(NEW)
            await store.claim(run.id, "dead", 60)
            await expire(pool, run.id)
            ids.append(run.id)
        batches = await asyncio.gather(*(store.requeue_lost(3) for _ in range(10)))
        rest = [await store.requeue_lost(20)]
        returned = [run_id for batch in [*batches, *rest] for run_id in batch]
        assert sorted(returned) == sorted(ids)

    with_pool(scenario)


@pytest.mark.parametrize("status", ["running", "queued"])
def test_a_reaper_does_not_wait_for_a_run_that_somebody_works_on(with_pool, expire, status):
    """A row that another transaction holds is skipped; the others are returned without it."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=0)
        runs = [(await store.create(NEW))[0] for _ in range(2)]
        if status == "running":
            for run in runs:
                await store.claim(run.id, "dead", 60)
                await expire(pool, run.id)
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM workflow.runs WHERE id = $1 FOR UPDATE", runs[0].id)
            async with asyncio.timeout(10):
                assert await store.requeue_lost(10) == [runs[1].id]

    with_pool(scenario)


def test_a_run_that_kills_its_workers_is_given_up(with_pool, expire):
    """After max_losses silent workers the run is dead, with a reason; releases do not count as losses."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, max_losses=2)
        run, _ = await store.create(NEW)
        for _ in range(3):
            await store.release(await store.claim(run.id, "stopping", 60))
        await store.claim(run.id, "dies", 60)
        await expire(pool, run.id)
        assert await store.claim(run.id, "dies too", 60) is not None
        await expire(pool, run.id)
        assert await store.claim(run.id, "would die", 60) is None
        assert await store.requeue_lost(10) == []
        ended = await store.get("alice", run.id)
        assert (ended.status, ended.error["type"]) == (RunStatus.DEAD, "WorkerLost")
        assert (await store.events("alice", run.id))[-1].kind is EventKind.DEAD

    with_pool(scenario)


def test_losses_count_only_while_a_run_gets_nowhere(with_pool, expire):
    """A long run whose workers are lost for others' sake goes on, as long as each takes it a step further.

    A step that stands already is no way forward: a run that kills each worker at the same place is given up.
    """

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, max_losses=2)
        run, _ = await store.create(NEW)
        for attempt in range(5):
            claim = await store.claim(run.id, "dies", 60)
            assert await store.record_progress(claim, Progress(f"step {attempt}", 10, ""))
            await expire(pool, run.id)
            assert await store.requeue_lost(10) == [run.id]
        claim = await store.claim(run.id, "dies", 60)
        assert not await store.record_progress(claim, Progress("step 4", 10, ""))
        await expire(pool, run.id)
        assert await store.requeue_lost(10) == []
        assert (await store.get("alice", run.id)).status is RunStatus.DEAD

    with_pool(scenario)


def test_a_result_is_read_by_those_who_ask_for_it_only(with_pool):
    """Getting, listing and claiming never load what runs returned, however large: only `result` does."""
    decoded = []

    def decode(text):
        decoded.append(text)
        return json.loads(text)

    async def scenario(pool):
        @asynccontextmanager
        async def connect():
            async with pool.acquire() as connection:
                await connection.set_type_codec(
                    "jsonb", schema="pg_catalog", encoder=str, decoder=decode, format="text"
                )
                yield connection

        store = PostgresRunStore(connect)
        new = replace(NEW, idempotency_key="k1")
        run, _ = await store.create(new)
        await store.succeed(await store.claim(run.id, "worker", 60), {"large": "result"})
        assert await store.list_recent("alice", 10) == [await store.get("alice", run.id)]
        assert (await store.create(new))[0].id == run.id
        assert json.loads(await store.result("alice", run.id)) == {"large": "result"}
        assert decoded
        assert not [text for text in decoded if "large" in text]

    with_pool(scenario)


def test_pages_show_each_run_once_newest_first(with_pool):
    """Following the cursor through the list meets every run, in order, also while new ones come."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        ids = [(await store.create(NEW))[0].id for _ in range(7)]
        page = await store.list_recent("alice", 3)
        seen = list(page)
        await store.create(NEW)
        while page:
            page = await store.list_recent("alice", 3, before=seen[-1].id)
            seen += page
        assert [run.id for run in seen] == ids[::-1]

    with_pool(scenario)


def test_what_postgresql_cannot_store_becomes_a_replacement_character(with_pool):
    """NUL and half surrogates in a result are replaced one for one; a backslash before u0000 is left alone."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "worker", 60)
        await store.succeed(claim, {"text": "a\0b\ud800c", "path": r"C:\u0000"})
        result = json.loads(await store.result("alice", run.id))
        assert result == {"text": "a\ufffdb\ufffdc", "path": r"C:\u0000"}

    with_pool(scenario)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from('\0\\u0\ud800\udfff"\n'))))
def test_encoded_text_keeps_every_place(text):
    """Encoding changes nothing but NUL and surrogates, and those one for one: spans into a text stay right."""
    decoded = json.loads(encode_json(text))
    assert len(decoded) == len(text)
    for before, after in zip(text, decoded, strict=True):
        assert after == ("\ufffd" if before == "\0" or "\ud800" <= before <= "\udfff" else before)


def test_a_result_that_is_no_json_is_refused_before_it_is_sent(with_pool):
    """NaN raises ValueError and the run stays claimed."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "worker", 60)
        with pytest.raises(ValueError, match="JSON"):
            await store.succeed(claim, {"x": float("nan"), "y": "connection is closed"})
        assert (await store.get("alice", run.id)).status is RunStatus.RUNNING

    with_pool(scenario)


def test_a_database_that_ends_the_connection_is_reported_as_unavailable(with_pool):
    """A backend killed in the middle of a transaction raises StoreUnavailableError, and the next call works."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)

        async def lose_the_connection():
            async with open_session(pool.acquire, "alice") as connection:
                await pool.fetchval("SELECT pg_terminate_backend($1)", connection.get_server_pid())
                await connection.fetchval("SELECT 1")

        with pytest.raises(StoreUnavailableError):
            await lose_the_connection()
        assert isinstance(await store.claim(run.id, "worker", 60), Claim)

    with_pool(scenario)


def test_a_database_that_is_not_there_is_reported_as_unavailable(unused_tcp_port):
    """A refused connection raises StoreUnavailableError that says what to check."""

    async def scenario():
        async with asyncpg.create_pool(
            f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none", min_size=0, max_size=1
        ) as pool:
            with pytest.raises(StoreUnavailableError, match="DATABASE_URL"):
                await PostgresRunStore(pool.acquire).requeue_lost(1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("statement", "arguments", "column"),
    [
        (run_statements.TAKE_FORGETTABLE, (100,), "forget_at"),
        (run_statements.REQUEUE_LOST, (100, 5, "{}", 1.0), "lease_until"),
        (run_statements.RESEND, (100, 5.0, []), "sent_at"),
    ],
)
def test_what_is_due_is_found_by_an_index(with_pool, statement, arguments, column):
    """Each pass of each reaper looks at what is due, and not at all that waits for its time."""

    async def scenario(pool):
        async with open_service_session(pool.acquire) as connection:
            await connection.execute("SET LOCAL enable_seqscan = off")  # the tables of a test are small
            plan = "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN {statement}", *arguments))
        assert f"Index Cond: ({column} <" in plan, plan

    with_pool(scenario)


def test_what_has_not_ended_is_counted_by_the_indexes(with_pool):
    """Whoever asks for figures does not read all runs that there ever were."""

    async def scenario(pool):
        async with open_service_session(pool.acquire) as connection:
            await connection.execute("SET LOCAL enable_seqscan = off")
            plan = "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN {UNFINISHED}"))
        assert "runs_by_sent_at" in plan, plan
        assert "runs_by_lease" in plan, plan

    with_pool(scenario)


@pytest.mark.parametrize("method", ["mark_unsent", "mark_forgotten"])
def test_many_runs_are_locked_in_one_order(with_pool, method):
    """Two that mark the same runs at once wait for each other in turn, and not for ever: PostgreSQL ended one."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        late, early = (await store.create(NEW))[0].id, (await store.create(NEW))[0].id
        while early > late:  # the one that stands first in the table is to be the last to be locked
            late, early = early, (await store.create(NEW))[0].id
        if method == "mark_forgotten":
            await pool.execute("UPDATE workflow.runs SET is_kept = false WHERE id = $1", late)
            await pool.execute("UPDATE workflow.runs SET is_kept = false WHERE id = $1", early)
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT FROM workflow.runs WHERE id = $1 FOR NO KEY UPDATE", early)
            marking = asyncio.create_task(getattr(store, method)([late, early]))
            while not await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not marking.done()
            async with pool.acquire() as other, other.transaction():
                await other.execute("SELECT FROM workflow.runs WHERE id = $1 FOR NO KEY UPDATE NOWAIT", late)
        await marking

    with_pool(scenario)
