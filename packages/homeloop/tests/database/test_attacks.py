"""
User alice cannot see or write what is bob's, nor leave anything in the connection that bob gets next.

The pool has one connection, so bob does get alice's, or a new one where hers could not be cleaned.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import asyncpg
import pytest

from homeloop import LoopRuntime, as_user
from homeloop.database import Connection, ConnectionPoolManager, _sessions, get_user_connection
from homeloop.errors import UserScopeError

pytestmark = pytest.mark.needs("postgres")

BOUND = 10.0  # seconds for something that happens at once
Attack = Callable[[Connection], Awaitable[None]]

LEFTOVERS = """
SELECT current_setting('app.user_id') AS user,
       current_user = session_user AS own_role,
       current_setting('search_path') AS search_path,
       current_setting('default_transaction_read_only') AS read_only,
       (SELECT array_agg(name) FROM pg_prepared_statements WHERE from_sql) AS prepared,
       ARRAY(SELECT name FROM pg_cursors WHERE is_holdable) AS cursors,
       ARRAY(SELECT pg_listening_channels()) AS channels,
       ARRAY(SELECT relname::text FROM pg_class WHERE relpersistence = 't') AS temporary,
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks
"""


@dataclass(frozen=True)
class Case:
    """What alice does in her block, the error it ends with (None: well), and whether her connection is kept."""

    attack: Attack
    error: type[BaseException] | None = None
    kept: bool = True


def sql(*statements: str) -> Attack:
    """Run statements, one after the other."""

    async def attack(connection: Connection) -> None:
        for statement in statements:
            await connection.execute(statement)

    return attack


def caught(*statements: str) -> Attack:
    """Run statements, and go on as if nothing had happened where one fails."""

    async def attack(connection: Connection) -> None:
        try:
            await sql(*statements)(connection)
        except asyncpg.PostgresError:
            return

    return attack


async def fail(connection: Connection) -> None:
    await connection.execute("UPDATE documents SET body = 'spoilt'")
    raise ZeroDivisionError


async def cancel_oneself(connection: Connection) -> None:
    await connection.execute("UPDATE documents SET body = 'spoilt'")
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await connection.fetchval("SELECT pg_sleep(60)")


async def savepoint_rolled_back(connection: Connection) -> None:
    savepoint = connection.transaction()
    await savepoint.start()
    await connection.execute("SELECT set_config('app.user_id', 'bob', true)")
    await savepoint.rollback()
    assert await connection.fetchval("SELECT array_agg(body) FROM documents") == ["of alice"]


async def savepoint_kept(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("SELECT set_config('app.user_id', 'bob', true)")


async def listen(connection: Connection) -> None:
    await connection.add_listener("gossip", lambda *_: None)


async def set_codec(connection: Connection) -> None:
    await connection.set_type_codec(
        "text", schema="pg_catalog", encoder=str, decoder=lambda told: f"alice: {told}"
    )


async def log_queries(connection: Connection) -> None:
    async def log(record: object) -> None:
        raise AssertionError(record)

    connection.add_query_logger(log)


async def log_queries_for_a_while(connection: Connection) -> None:
    async def log(_: object) -> None:
        pass

    with connection.query_logger(log):
        await connection.fetch("SELECT 1")


async def wait_for_the_end(connection: Connection) -> None:
    connection.add_termination_listener(lambda _: None)


async def touch_others(connection: Connection) -> None:
    assert await connection.execute("UPDATE documents SET body = 'spoilt' WHERE owner = 'bob'") == "UPDATE 0"
    assert await connection.execute("DELETE FROM documents WHERE owner = 'bob'") == "DELETE 0"
    assert await connection.fetch("SELECT 1 FROM documents WHERE owner <> 'alice'") == []


CASES = {
    "touches bob's rows": Case(touch_others),
    "writes a row for bob": Case(
        sql("INSERT INTO documents VALUES ('3', 'bob', 'forged')"), asyncpg.InsufficientPrivilegeError
    ),
    "gives a row to bob": Case(sql("UPDATE documents SET owner = 'bob'"), asyncpg.InsufficientPrivilegeError),
    "fails in SQL": Case(sql("UPDATE documents SET body = 'spoilt'", "SELECT 1 / 0"), asyncpg.DivisionByZeroError),
    "fails in Python": Case(fail, ZeroDivisionError),
    "is cancelled in a query": Case(cancel_oneself, asyncio.CancelledError),
    "hides a failed statement": Case(
        caught("UPDATE documents SET body = 'spoilt'", "SELECT 1 / 0"), UserScopeError
    ),
    "SET": Case(sql("SET app.user_id = 'bob'", "UPDATE documents SET body = 'spoilt'"), UserScopeError),
    "SET LOCAL": Case(
        sql("SET LOCAL app.user_id = 'bob'", "UPDATE documents SET body = 'spoilt'"), UserScopeError
    ),
    "set_config of the claims": Case(sql("SELECT set_config('app.user_claims', '[]', true)"), UserScopeError),
    "RESET": Case(sql("RESET app.user_id"), UserScopeError),
    "RESET ALL": Case(sql("RESET ALL"), UserScopeError),
    "DISCARD ALL": Case(sql("DISCARD ALL"), asyncpg.ActiveSQLTransactionError),
    "COMMIT and SET": Case(sql("COMMIT", "SET app.user_id = 'bob'"), UserScopeError),
    "COMMIT and DISCARD ALL": Case(sql("COMMIT", "DISCARD ALL"), UserScopeError, kept=False),
    "COMMIT and BEGIN": Case(sql("COMMIT", "BEGIN"), UserScopeError),
    "ROLLBACK": Case(sql("ROLLBACK"), UserScopeError),
    "savepoint rolled back": Case(savepoint_rolled_back),
    "savepoint kept": Case(savepoint_kept, UserScopeError),
    "SET ROLE": Case(sql("SELECT set_config('role', session_user || '_other', false)")),
    "SET search_path": Case(sql("SET search_path = pg_temp, public")),
    "SET read only": Case(sql("SET default_transaction_read_only = on")),
    "temporary table in the way": Case(sql("CREATE TEMPORARY TABLE documents (LIKE documents)")),
    "PREPARE": Case(sql("PREPARE loot AS SELECT 'of alice'"), kept=False),
    "DEALLOCATE ALL": Case(sql("DEALLOCATE ALL"), UserScopeError, kept=False),
    "DEALLOCATE ALL and fail": Case(
        sql("DEALLOCATE ALL", "SELECT 1 / 0"), asyncpg.DivisionByZeroError, kept=False
    ),
    "cursor that holds": Case(sql("DECLARE loot CURSOR WITH HOLD FOR SELECT body FROM documents")),
    "LISTEN": Case(sql("LISTEN gossip")),
    "listener": Case(listen),
    "codec": Case(set_codec, kept=False),
    "query logger": Case(log_queries, kept=False),
    "query logger for a while": Case(log_queries_for_a_while),
    "termination listener": Case(wait_for_the_end, kept=False),
    "advisory lock": Case(sql("SELECT pg_advisory_lock(7)")),
}


async def alice_attacks(attack: Attack, backends: list[int]) -> None:
    """Attack; note alice's server process."""
    with as_user("alice"):
        async with get_user_connection() as connection:
            backends.append(connection.get_server_pid())
            await attack(connection)


async def bob_looks(backends: list[int]) -> None:
    """Fail where bob meets anything of alice's; note his server process."""
    with as_user("bob"):
        async with get_user_connection() as connection:
            backends.append(connection.get_server_pid())
            assert await connection.fetchval("SELECT array_agg(body) FROM documents") == ["of bob"]
            found = await connection.fetchrow(LEFTOVERS)
            assert found is not None
            assert dict(found) == {
                "user": "bob",
                "own_role": True,
                "search_path": '"$user", public',
                "read_only": "off",
                "prepared": ["homeloop_untouched"],
                "cursors": [],
                "channels": [],
                "temporary": [],
                "locks": 0,
            }


@pytest.fixture
def other_role(configured) -> Iterator[None]:
    """A role that users' connections may become."""
    configured.fetch(f"CREATE ROLE {configured.role}_other IN ROLE pg_monitor")
    configured.fetch(f"GRANT {configured.role}_other TO {configured.role}")
    yield
    configured.fetch(f"DROP ROLE {configured.role}_other")


@pytest.mark.filterwarnings("ignore:.*notification listener:asyncpg.InterfaceWarning")
@pytest.mark.parametrize("mode", ["shared", "per_user"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("other_role")
def test_alice_leaves_nothing_for_bob(configured, name: str, mode: str, runtime: LoopRuntime) -> None:
    """Whatever alice's block does, bob sees his own rows, unharmed, as himself, in a clean session."""
    case = CASES[name]
    ConnectionPoolManager.configure(configured.dsn, mode=mode, min_size=1, max_size=1)
    backends: list[int] = []

    async def one_after_the_other() -> None:
        await alice_attacks(touch_others, [])  # fills the driver's cache of statements
        await bob_looks(backends)
        if case.error is None:
            await alice_attacks(case.attack, backends)
        else:
            with pytest.raises(case.error):
                await alice_attacks(case.attack, backends)
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        await bob_looks(backends)

    runtime.run(one_after_the_other, timeout=BOUND)
    before, alices, after = backends
    assert (before == alices) == (mode == "shared")
    assert (before == after) == (mode == "per_user" or case.kept)
    rows = configured.fetch("SELECT owner, body FROM documents ORDER BY id")
    assert rows == [{"owner": "alice", "body": "of alice"}, {"owner": "bob", "body": "of bob"}]


@pytest.mark.filterwarnings("ignore:.*notification listener:asyncpg.InterfaceWarning")
def test_alice_keeps_no_way_into_bobs_connection(configured, runtime: LoopRuntime) -> None:
    """What alice kept of her connection, her prepared statement and her listener is dead when bob has it."""
    heard: list[object] = []

    async def main() -> None:
        with as_user("alice"):
            async with get_user_connection() as connection:
                statement = await connection.prepare("SELECT array_agg(body) FROM documents")
                await connection.add_listener("gossip", lambda *told: heard.append(told))
        with as_user("bob"):
            async with get_user_connection() as bobs:
                with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                    await connection.fetch("SELECT body FROM documents")
                with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                    await statement.fetch()
                await bobs.execute("NOTIFY gossip")
        await bob_looks([])

    runtime.run(main, timeout=BOUND)
    assert heard == []


def test_lost_connection_is_told_as_such(configured, runtime: LoopRuntime) -> None:
    """When the server ends a user's connection, the block fails with the driver's word; the next gets another."""

    async def main() -> None:
        with pytest.raises(asyncpg.ConnectionDoesNotExistError), as_user("alice"):
            async with get_user_connection() as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        await bob_looks([])

    runtime.run(main, timeout=BOUND)


def test_connection_lost_unnoticed_is_told_as_such(configured, runtime: LoopRuntime) -> None:
    """When it went away while the block did something else, the block's end says so."""

    async def main() -> None:
        with pytest.raises(UserScopeError, match="its connection was closed or lost"), as_user("alice"):
            async with get_user_connection() as connection:
                await connection.close()
        await bob_looks([])

    runtime.run(main, timeout=BOUND)


def test_server_that_does_not_answer_costs_the_connection(
    configured, runtime: LoopRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is not cleaned in time is dropped: what the block committed stays, bob gets another."""
    backends: list[int] = []

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_sessions, "RESET_TIMEOUT", 0.0)
            await alice_attacks(sql("INSERT INTO documents VALUES ('3', 'alice', 'kept')"), backends)
        await bob_looks(backends)

    runtime.run(main, timeout=BOUND)
    assert backends[0] != backends[1]
    assert configured.fetch("SELECT body FROM documents WHERE id = '3'") == [{"body": "kept"}]


def test_same_user_inside_out(configured, runtime: LoopRuntime) -> None:
    """A block belongs to the user it was entered for, even while somebody else is the current user."""

    async def main() -> None:
        with as_user("alice"):
            async with get_user_connection() as connection:
                with as_user("bob"):
                    assert await connection.fetchval("SELECT array_agg(body) FROM documents") == ["of alice"]

    runtime.run(main, timeout=BOUND)
