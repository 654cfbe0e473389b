"""What stores cost: how often an operation sends something to the database and waits for the answer."""

import asyncio
import re
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from workflow_service.domain.run import CancelMode, NewRun, Progress
from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool, saver_on
from workflow_service.gateways.postgres.pool import lend, open_pool
from workflow_service.gateways.postgres.runs import PostgresRunStore

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "review", {"text": "a"}, {})
ONE_STATEMENT = 3  # what begins the transaction in its scope, the statement, COMMIT


async def measure(database):
    """Return what each operation of a run's life has sent."""
    sent = []

    def note(query):
        sent.append(query.query)

    async with asyncio.timeout(60), open_pool(database, 1, 30.0) as pool:
        async with pool.acquire() as connection:
            connection.add_query_logger(note)
        store = PostgresRunStore(lambda: lend(pool))
        found = {}

        async def count(name, operation):
            sent.clear()
            result = await operation
            found[name] = len(sent)
            return result

        run, _ = await count("create", store.create(NEW))
        await count("get", store.get("alice", run.id))
        await count("list_recent", store.list_recent("alice", 10))
        claim = await count("claim", store.claim(run.id, "worker", 60))
        await count("renew", store.renew(claim, 60))
        await count("record_progress", store.record_progress(claim, Progress("parse", 10, "read")))
        await count("events", store.events("alice", run.id))
        await count("succeed", store.succeed(claim, {"answer": 1}))
        await count("result", store.result("alice", run.id))
        other, _ = await store.create(NEW)
        await count("fail", store.fail(await store.claim(other.id, "worker", 60), {"message": "no"}))
        third, _ = await store.create(NEW)
        await count("request_cancel", store.request_cancel("alice", third.id, CancelMode.INTERRUPT))
        return found


def test_an_operation_is_as_few_round_trips_as_it_has_statements(database):
    """A statement in a scope is three, whatever it changes; nothing is asked for when a connection goes back."""
    found = asyncio.run(measure(database))
    # The event of a new run is a statement of its own; to cancel, the run is read before and after.
    assert found == dict.fromkeys(found, ONE_STATEMENT) | {"create": 4, "request_cancel": 5}


def test_a_connection_goes_back_as_it_came(database):
    """Though nobody resets it: what a scope sets, and what breaks off in one, leaves nothing for the next."""
    session = """
    SELECT current_user = session_user, coalesce(workflow.scope(), ''), pg_current_xact_id_if_assigned() IS NULL,
           (SELECT count(*) FROM pg_settings WHERE source = 'session'),
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
           (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels())
    """

    async def scenario():
        async with asyncio.timeout(60), open_pool(database, 1, 30.0) as pool:
            async with pool.acquire() as connection:
                before = tuple(await connection.fetchrow(session))
            store = PostgresRunStore(lambda: lend(pool))
            run, _ = await store.create(NEW)
            claim = await store.claim(run.id, "worker", 60)
            with pytest.raises(ValueError, match="JSON"):
                await store.succeed(claim, {"x": float("nan")})
            await store.succeed(claim, {})
            async with pool.acquire() as connection:
                assert tuple(await connection.fetchrow(session)) == before

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE workflow.runs; --",
        r"\x00\' || 'alice",
        "$1",
        "alice') ; SELECT ('",
        "Grüße, 你好 🎈",
        "a\nb",
    ],
)
def test_a_users_name_is_never_read_as_sql(with_pool, name):
    """It travels in the text of the statement that enters the scope; whatever it is made of, it is a name."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        alices, _ = await store.create(NEW)
        run, _ = await store.create(NewRun(name, "review", {}))
        assert (await store.get(name, run.id)).user_id == name
        assert await store.get(name, alices.id) is None
        assert [each.id for each in await store.list_recent(name, 10)] == [run.id]

    with_pool(scenario)


def test_a_step_said_twice_at_once_is_recorded_once(with_pool):
    """Two reports of it wait for the run's row together: what the first writes, the other's snapshot has not."""
    waiting = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    """

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "worker", 60)
        async with pool.acquire() as other, asyncio.TaskGroup() as group, other.transaction():
            await other.execute("SELECT FROM workflow.runs WHERE id = $1 FOR UPDATE", run.id)
            reports = [
                group.create_task(store.record_progress(claim, Progress("parse", percent, "")))
                for percent in (10, 20)
            ]
            while await pool.fetchval(waiting) < len(reports):  # noqa: ASYNC110  the server's state
                await asyncio.sleep(0.01)
        assert sorted(report.result() for report in reports) == [False, True]
        events = await store.events("alice", run.id)
        assert [event.kind for event in events] == ["queued", "started", "progress"]
        assert (await store.get("alice", run.id)).percent == events[-1].data["percent"]

    with_pool(scenario)


def test_a_saver_takes_two_round_trips_for_what_it_writes(database, tmp_path):
    """One enters the run's scope, the other brings the statements and COMMIT; a look takes one more for rows."""
    thread = {"thread_id": str(uuid4()), "checkpoint_ns": ""}
    at_first = {"configurable": {**thread, "checkpoint_id": "1"}}
    trace = tmp_path / "trace"
    found = {}

    async def scenario():
        async with (
            asyncio.timeout(60),
            open_checkpoint_pool(database, 1, 30.0) as pool,
            saver_on(pool, UUID(thread["thread_id"]), None) as saver,
        ):

            async def count(operation):
                """Count how often the server answers the client, in libpq's own trace of the connection."""
                with trace.open("wb") as file:
                    async with pool.connection() as connection:
                        connection.pgconn.trace(file.fileno())
                    await operation
                    async with pool.connection() as connection:
                        connection.pgconn.untrace()
                senders = re.findall(r"^[\d-]+ [\d:.]+\t([FB])\t", trace.read_text(), re.MULTILINE)
                found[operation.__name__] = sum(turn == ("F", "B") for turn in pairwise(senders))

            put = saver.aput({"configurable": thread}, empty_checkpoint(), {"source": "input", "step": -1}, {})
            await count(put)
            await count(saver.aput_writes(at_first, [("channel", [1])], "task"))
            await count(saver.aget_tuple({"configurable": thread}))
            await count(saver.adelete_thread(thread["thread_id"]))

    asyncio.run(scenario())
    assert found == {"aput": 2, "aput_writes": 2, "aget_tuple": 3, "adelete_thread": 2}
