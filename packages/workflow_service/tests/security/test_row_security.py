"""Row security: what a statement sees is decided by the database, whatever the statement says."""

import asyncio
from pathlib import Path
from typing import TypedDict
from uuid import UUID, uuid4

import asyncpg
import pytest
from langgraph.graph import END, START, StateGraph

import workflow_service
from workflow_service.domain.run import NewRun, Progress
from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool, saver_on
from workflow_service.gateways.postgres.connection import (
    open_key_session,
    open_operator_session,
    open_service_session,
    open_session,
)
from workflow_service.gateways.postgres.documents import PostgresDocumentStore
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import DatabaseRightsError

pytestmark = pytest.mark.needs("postgres")

USERS = ("alice", "bob", "o'brien'; DROP TABLE workflow.runs; --")
OF_NOBODY = {"alembic_version", "schema_versions", "checkpoint_migrations"}
"""The tables that hold nothing of any user. Think long before you add one."""

TABLES = """
SELECT relname, relrowsecurity AND relforcerowsecurity AS is_protected,
       EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid) AS has_policy
FROM pg_class WHERE relnamespace = 'workflow'::regnamespace AND relkind IN ('r', 'p')
"""
COUNTS = {
    "documents": 1,
    "runs": 1,
    "run_events": 3,
    "api_keys": 1,
}


class State(TypedDict):
    """What a graph keeps."""

    secret: str


async def checkpoint(url, run_id, attempt, secret):
    async def node(_state):
        return {"secret": secret}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    async with open_checkpoint_pool(url, 1, 30.0) as pool, saver_on(pool, run_id, attempt) as saver:
        config = {"configurable": {"thread_id": str(run_id)}}
        await graph.compile(checkpointer=saver).ainvoke({"secret": ""}, config, durability="sync")


async def fill(pool, url):
    """Let each user have a row in every table; return each one's run."""
    runs, documents = PostgresRunStore(pool.acquire), PostgresDocumentStore(pool.acquire)
    made = {}
    for user_id in USERS:
        run, _ = await runs.create(NewRun(user_id, "idle", {"of": user_id}))
        await documents.save(user_id, "x.txt", "text/plain", user_id.encode())
        claim = await runs.claim(run.id, "worker", 60)
        await runs.record_progress(claim, Progress("step", 10, "done"))
        async with open_session(pool.acquire, user_id) as connection:
            await connection.execute(
                "INSERT INTO workflow.api_keys (prefix, user_id, label, digest) VALUES ($1, $2, '', $3)",
                f"prefix of {user_id}",
                user_id,
                b"x" * 32,
            )
        await checkpoint(url, run.id, claim.run.attempt, user_id)
        made[user_id] = run.id
    return made


async def tables(connection):
    return {row["relname"]: row for row in await connection.fetch(TABLES)}


async def protected(connection):
    return sorted(set(await tables(connection)) - OF_NOBODY)


async def count_all(connection):
    """Count the rows that can be seen of every table, without any condition."""
    return {
        table: await connection.fetchval(f"SELECT count(*) FROM workflow.{table}")
        for table in await protected(connection)
    }


def test_every_table_has_a_policy_or_holds_nothing_of_users(deployment, on):
    """LangGraph's too. A new migration that forgets SELECT workflow.protect() fails here."""

    async def scenario(pool):
        await fill(pool, deployment)
        found = await tables(pool)
        assert set(found) >= {*COUNTS, "checkpoints", "checkpoint_blobs", "checkpoint_writes"}
        open_tables = [name for name, row in found.items() if not (row["is_protected"] and row["has_policy"])]
        assert set(open_tables) <= OF_NOBODY, "end your migration with: SELECT workflow.protect()"

    on(deployment, scenario)


def test_without_a_scope_nothing_is_seen(deployment, on):
    """Raw SQL as the service's role, on a connection that served users before, sees no row of any table."""

    async def scenario(pool):
        await fill(pool, deployment)
        async with pool.acquire() as connection, connection.transaction():
            is_bound = not await connection.fetchval(
                "SELECT rolsuper FROM pg_roles WHERE rolname = current_user AND rolsuper"
            )
            if not is_bound:
                await connection.execute("SET LOCAL ROLE workflow_service_user")
            assert set((await count_all(connection)).values()) == {0}

    on(deployment, scenario)


def test_a_user_sees_what_is_theirs_and_nothing_else(deployment, on):
    """Statements without any condition: in each table the user's rows, as many as there are."""

    async def scenario(pool):
        made = await fill(pool, deployment)
        for user_id in USERS:
            async with open_session(pool.acquire, user_id) as connection:
                counts = await count_all(connection)
                assert COUNTS.items() <= counts.items()
                assert min(counts[table] for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")) > 0
                assert await connection.fetchval("SELECT id FROM workflow.runs") == made[user_id]
                threads = await connection.fetch("SELECT DISTINCT thread_id FROM workflow.checkpoints")
                assert [UUID(row["thread_id"]) for row in threads] == [made[user_id]]
                assert await connection.fetchval("SELECT content FROM workflow.documents") == user_id.encode()
        for nobody in ("", "carol", "%", "ALICE", "alice "):
            async with open_session(pool.acquire, nobody) as connection:
                assert set((await count_all(connection)).values()) == {0}

    on(deployment, scenario)


def test_a_user_cannot_write_what_is_anothers(deployment, on):
    """Updates and deletes touch nothing, inserts and gifts are refused: the others' rows are as before."""

    async def scenario(pool):
        made = await fill(pool, deployment)
        async with open_session(pool.acquire, "bob") as connection:
            before = await connection.fetch("SELECT * FROM workflow.runs")
        async with open_session(pool.acquire, "alice") as connection:
            for table in await protected(connection):
                column = "thread_id" if table.startswith("checkpoint") else "run_id"
                column = "user_id" if table in ("documents", "runs", "api_keys") else column
                other = "bob" if column == "user_id" else made["bob"]
                other = str(other) if column == "thread_id" else other
                if column != "run_id" or table == "run_events":
                    done = await connection.execute(
                        f"DELETE FROM workflow.{table} WHERE {column} = $1",
                        other,
                    )
                    assert done == "DELETE 0"
        forgeries = (
            ("UPDATE workflow.runs SET user_id = 'bob'", ()),
            ("UPDATE workflow.documents SET user_id = 'bob'", ()),
            (
                "INSERT INTO workflow.run_events (run_id, seq, kind, data) VALUES ($1, 9, 'failed', '{}')",
                (made["bob"],),
            ),
            ("UPDATE workflow.run_events SET run_id = $1, seq = seq + 100", (made["bob"],)),
            ("UPDATE workflow.checkpoints SET thread_id = $1", (str(made["bob"]),)),
        )
        for statement, values in forgeries:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                async with open_session(pool.acquire, "alice") as connection:
                    await connection.execute(statement, *values)
        async with open_session(pool.acquire, "bob") as connection:
            assert await connection.fetch("SELECT * FROM workflow.runs") == before
            assert COUNTS.items() <= (await count_all(connection)).items()

    on(deployment, scenario)


def test_the_service_sees_runs_and_events_only(deployment, on):
    """What claims runs and finds lost ones reads no document, no checkpoint and no key."""

    async def scenario(pool):
        await fill(pool, deployment)
        async with open_service_session(pool.acquire) as connection:
            seen = {table for table, count in (await count_all(connection)).items() if count}
        assert {"runs", "run_events"} <= seen
        assert not seen & {"documents", "api_keys"}

    on(deployment, scenario)


def test_a_presented_key_and_an_operator_see_keys_only(deployment, on):
    """The prefix opens its own row; the command line sees all keys and nothing of what users have."""

    async def scenario(pool):
        await fill(pool, deployment)
        async with open_key_session(pool.acquire, "prefix of alice") as connection:
            counts = await count_all(connection)
            assert counts.pop("api_keys") == 1
            assert set(counts.values()) == {0}
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("UPDATE workflow.api_keys SET prefix = 'prefix of bob and me'")
        async with open_operator_session(pool.acquire) as connection:
            counts = await count_all(connection)
            assert counts.pop("api_keys") == len(USERS)
            assert set(counts.values()) == {0}

    on(deployment, scenario)


def test_a_saver_sees_the_checkpoints_of_its_run(deployment, on):
    """Asked for another run's thread it finds nothing, and it deletes nothing there."""

    async def scenario(pool):
        made = await fill(pool, deployment)
        async with (
            open_checkpoint_pool(deployment, 1, 30.0) as checkpoints,
            saver_on(checkpoints, made["alice"], None) as saver,
        ):
            of = {user: {"configurable": {"thread_id": str(run_id)}} for user, run_id in made.items()}
            assert await saver.aget_tuple(of["alice"]) is not None
            assert await saver.aget_tuple(of["bob"]) is None
            assert {kept.config["configurable"]["thread_id"] async for kept in saver.alist(None)} == {
                str(made["alice"])
            }
            await saver.adelete_thread(str(made["bob"]))
        async with open_session(pool.acquire, "bob") as connection:
            assert await connection.fetchval("SELECT count(*) FROM workflow.checkpoints") > 0

    on(deployment, scenario)


def test_a_scope_ends_with_its_transaction(deployment, on):
    """Neither the user nor the role stays on the connection, also after an error and a cancellation."""

    async def scenario(pool):
        async def look():
            async with pool.acquire() as connection:
                return tuple(
                    await connection.fetchrow(
                        "SELECT current_user = session_user, coalesce(workflow.scope(), ''), "
                        "coalesce(workflow.subject_of('user'), '')"
                    )
                )

        async with open_session(pool.acquire, "alice"):
            pass
        assert await look() == (True, "", "")
        with pytest.raises(ZeroDivisionError):
            async with open_session(pool.acquire, "alice"):
                raise ZeroDivisionError
        assert await look() == (True, "", "")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), open_session(pool.acquire, "alice") as connection:
                await connection.execute("SELECT pg_sleep(60)")
        assert await look() == (True, "", "")

    on(deployment, scenario)


def test_a_role_that_no_policy_binds_is_refused(unbound_owner, on):
    """With BYPASSRLS, and without the right to become another, the service does nothing and says what to do."""

    async def scenario(pool):
        with pytest.raises(DatabaseRightsError, match=r"row security does not bind.*workflow\.protect\(\); GRANT"):
            await PostgresRunStore(pool.acquire).get("alice", uuid4())

    on(unbound_owner, scenario)


def test_a_role_that_owns_nothing_can_serve(guest, on):
    """Migrated by another, the service needs no right but to be a member of workflow_service_user."""

    async def scenario(pool):
        await fill(pool, guest)
        async with open_session(pool.acquire, "alice") as connection:
            assert COUNTS.items() <= (await count_all(connection)).items()

    on(guest, scenario)


def test_gateways_reach_users_rows_through_scopes_only():
    """A connection outside every scope is taken by who has nothing to do with users."""
    source = Path(workflow_service.__file__).parent
    outside = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if "open_connection(" in path.read_text() or "self._connect()" in path.read_text()
    }
    assert outside == {"gateways/postgres/connection.py", "gateways/postgres/schema.py"}
