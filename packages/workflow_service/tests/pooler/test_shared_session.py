"""PgBouncer in transaction mode: what one client leaves in the session that the next one gets is nothing."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict
from uuid import UUID

import asyncpg
import pytest
from langgraph.graph import END, START, StateGraph

from workflow_service.domain.run import NewRun
from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool, saver_on
from workflow_service.gateways.postgres.connection import Connect, Connection, open_connection, open_session
from workflow_service.gateways.postgres.pool import lend, open_pool
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.gateways.postgres.schema import is_migrated
from workflow_service.gateways.postgres.single import single_connection
from workflow_service.ports import InvalidSettingError, StoreUnavailableError

from .conftest import BOUND, LEASE, PgBouncer, Pooled

pytestmark = pytest.mark.needs("postgres", "pgbouncer")

SESSION = "SELECT pg_backend_pid()"
TRACES = """
SELECT current_user = session_user AND coalesce(current_setting('workflow.subject', true), '') = ''
       AND coalesce(current_setting('workflow.scope', true), '') = ''
       AND current_setting('idle_in_transaction_session_timeout') = '0'
       AND current_setting('lock_timeout') = '0' AND current_setting('search_path') = '"$user", public'
       AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name <> '')
       AND NOT EXISTS (SELECT FROM pg_listening_channels())
       AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
       AND NOT EXISTS (SELECT FROM pg_class WHERE relpersistence = 't')
"""


class State(TypedDict):
    """What the graph of a test keeps."""

    steps: list[str]


async def _create(connect: Connect, user_id: str) -> UUID:
    run, _ = await PostgresRunStore(connect).create(NewRun(user_id, "review", {"of": user_id}))
    return run.id


async def _is_as_new(url: str) -> bool:
    """Return whether a stranger who gets the session finds nothing of the service in it."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        async with connection.transaction():
            return bool(await connection.fetchval(TRACES))
    finally:
        await connection.close()


def test_users_who_share_a_session_see_their_own_rows_only(pooled: Pooled) -> None:
    """Also when the other one was there a moment ago, failed, gave up, or did the same thing at the same time."""

    async def scenario(one: Connect, other: Connect) -> None:
        sessions = set()
        ids = {user: await _create(connect, user) for user, connect in (("alice", one), ("bob", other))}
        for connect, user, stranger in ((one, "alice", "bob"), (other, "bob", "alice")) * 3:
            store = PostgresRunStore(connect)
            assert await store.get(user, ids[user]) is not None
            assert await store.get(user, ids[stranger]) is None
            assert await store.get(stranger, ids[user]) is None
            async with open_session(connect, user) as connection:
                sessions.add(await connection.fetchval(SESSION))
                seen = await connection.fetchval("SELECT array_agg(user_id) FROM workflow.runs")
                assert seen == [user]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with open_session(connect, user) as connection:
                    await connection.execute("UPDATE workflow.runs SET user_id = $1", stranger)
            assert await _is_as_new(pooled.url)
        assert len(sessions) == 1, "they did share one"

        async def ask(connect: Connect, user: str) -> list[str]:
            async with open_session(connect, user) as connection:
                return list(await connection.fetchval("SELECT array_agg(user_id) FROM workflow.runs"))

        asked = [ask(connect, user) for _ in range(25) for connect, user in ((one, "alice"), (other, "bob"))]
        assert await asyncio.gather(*asked) == [["alice"], ["bob"]] * 25

    pooled.run(scenario)
    assert pooled.ask("SELECT count(*) FROM workflow.runs") == 2


def test_a_cancelled_statement_takes_nothing_along(pooled: Pooled) -> None:
    """Who gives up in the middle of one leaves the session to the next, with nothing of it."""

    async def scenario(one: Connect, other: Connect) -> None:
        ids = {user: await _create(connect, user) for user, connect in (("alice", one), ("bob", other))}
        begun = asyncio.Event()

        async def give_up() -> None:
            async with open_session(one, "alice") as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(1)")
                begun.set()
                await connection.execute("SELECT pg_sleep(600)")

        task = asyncio.create_task(give_up())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await PostgresRunStore(other).get("bob", ids["bob"]) is not None
        assert await PostgresRunStore(other).get("bob", ids["alice"]) is None
        assert await _is_as_new(pooled.url)

    pooled.run(scenario)


def test_a_client_that_falls_silent_in_a_transaction_gives_the_session_free(pooled: Pooled) -> None:
    """The server ends it after the lease, though nothing was set for the session."""

    async def scenario(one: Connect, other: Connect) -> None:
        ended = asyncio.Event()

        async def fall_silent() -> None:
            async with open_session(one, "alice") as connection:
                ended.set()
                while not connection.is_closed():  # noqa: ASYNC110  the server ends it
                    await asyncio.sleep(0.01)
                await connection.execute("SELECT 1")

        silent = asyncio.create_task(fall_silent())
        await ended.wait()
        await _create(other, "bob")  # waits for the one session
        with pytest.raises(StoreUnavailableError):
            await silent

    pooled.run(scenario, lease=0.2)


def test_checkpoints_go_on_where_another_client_ended(pooled: Pooled) -> None:
    """A graph that was interrupted is taken up through the pooler; a run without a row sees none of it."""
    ids: list[UUID] = []

    async def create(one: Connect, other: Connect) -> None:
        for connect, user in ((one, "alice"), (other, "bob")):
            ids.append(await _create(connect, user))
            claim = await PostgresRunStore(connect).claim(ids[-1], "worker", LEASE)
            assert claim is not None
            assert claim.run.attempt == 1

    def graph(fails: bool) -> StateGraph[State]:
        built = StateGraph(State)
        built.add_node("first", lambda state: {"steps": [*state["steps"], "first"]})

        def second(state: State) -> State:
            if fails:
                raise LookupError("cut off")
            return {"steps": [*state["steps"], "second"]}

        built.add_node("second", second)
        built.add_edge(START, "first")
        built.add_edge("first", "second")
        built.add_edge("second", END)
        return built

    async def main() -> None:
        pools = [
            open_checkpoint_pool(pooled.url, 2, LEASE, direct_dsn=pooled.direct_url, pooler="transaction")
            for _ in range(2)
        ]
        mine, strangers = ({"configurable": {"thread_id": str(id_)}} for id_ in ids)
        async with asyncio.timeout(60), pools[0] as one, pools[1] as other:
            async with saver_on(one, ids[0], 1) as saver:
                cut_off = graph(fails=True).compile(checkpointer=saver)
                with pytest.raises(LookupError):
                    await cut_off.ainvoke({"steps": []}, mine, durability="sync")
            async with saver_on(other, ids[1], 1) as saver:
                assert await saver.aget_tuple(mine) is None, (
                    "in the scope of bob's run there is nothing of alice's"
                )
                assert await saver.aget_tuple(strangers) is None
            async with saver_on(other, ids[0], 1) as saver:
                resumed = graph(fails=False).compile(checkpointer=saver)
                assert await resumed.ainvoke(None, mine, durability="sync") == {"steps": ["first", "second"]}
            assert await _is_as_new(pooled.url)

            async def keep(number: int) -> None:
                async with saver_on((one, other)[number % 2], ids[0], 1) as saver:
                    config = {"configurable": {"thread_id": str(ids[0]), "checkpoint_ns": f"{number}"}}
                    ran = graph(fails=False).compile(checkpointer=saver)
                    assert await ran.ainvoke({"steps": []}, config) == {"steps": ["first", "second"]}

            await asyncio.gather(*(keep(number) for number in range(8)))

    pooled.run(create)
    asyncio.run(main())


def test_commands_lead_through_a_pooler_too(database: str, pgbouncer: PgBouncer) -> None:
    """A single connection, which opens and ends with one question (keys, doctor), whatever sessions answer it."""
    url = pgbouncer(database, "transaction", 3)

    async def main() -> list[bool]:
        connect = single_connection(url)
        return await asyncio.gather(*(is_migrated(connect) for _ in range(10)))

    assert asyncio.run(main()) == [True] * 10


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("ignored", ["", "idle_in_transaction_session_timeout,tcp_user_timeout"])
def test_a_pooler_that_nobody_told_of_is_refused(
    mode: str, ignored: str, database: str, pgbouncer: PgBouncer
) -> None:
    """At the first connection, with what to set; not now and then by a statement that is missing."""
    url = pgbouncer(database, mode, 3, ignored)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        async with open_pool(url, 1, LEASE) as pool, lend(pool) as connection:
            yield connection

    async def main() -> None:
        async with asyncio.timeout(BOUND), open_connection(connect):
            raise AssertionError("it was not refused")

    advice = "set WORKFLOW_DATABASE_POOLER=transaction, and WORKFLOW_DATABASE_DIRECT_URL"
    with pytest.raises(InvalidSettingError, match=advice):
        asyncio.run(main())


def test_a_worker_does_not_begin_behind_a_pooler_that_nobody_told_of(pooled: Pooled) -> None:
    """It would take runs and fail each; its last words are what to set."""
    environment = {**os.environ, "DATABASE_URL": pooled.url, "BROKER_URL": "redis://127.0.0.1:1/0"}
    for name in ("WORKFLOW_DATABASE_POOLER", "WORKFLOW_DATABASE_DIRECT_URL"):
        environment.pop(name, None)
    ended = subprocess.run(
        [sys.executable, "-m", "workflow_service", "worker"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert ended.returncode == 1
    assert "set WORKFLOW_DATABASE_POOLER=transaction, and WORKFLOW_DATABASE_DIRECT_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
