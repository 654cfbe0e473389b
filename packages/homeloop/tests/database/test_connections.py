"""Connections for the current user and for the service, on whatever loop asks."""

import asyncio
import pickle
import threading
from typing import Any

import asyncpg
import pytest

import homeloop
from homeloop import LoopRuntime, User, as_user, current_user
from homeloop.database import (
    ConnectionPoolManager,
    ensure_async_pool_initialization,
    get_service_connection,
    get_user_connection,
)
from homeloop.errors import ConfigurationError, MissingUserError, UnsafeRoleError, UserScopeError, WrongThreadError

pytestmark = pytest.mark.needs("postgres")

BOUND = 10.0  # seconds for something that happens at once


async def bodies() -> list[str]:
    """What the current user sees."""
    async with get_user_connection() as connection:
        return [row["body"] for row in await connection.fetch("SELECT body FROM documents ORDER BY id")]


async def bodies_of(user: User | str) -> list[str]:
    with as_user(user):
        return await bodies()


def test_user_sees_own_rows_and_the_service_sees_all(configured, runtime: LoopRuntime) -> None:
    """B2: the current user travels with the call, and the policies hold for it."""
    with as_user("alice"):
        assert runtime.run(bodies) == ["of alice"]
    with as_user("bob"):
        assert runtime.run(bodies) == ["of bob"]

    async def everything() -> int:
        async with get_service_connection() as connection:
            return await connection.fetchval("SELECT count(*) FROM documents")

    assert runtime.run(everything) == 2


def test_block_is_one_transaction(configured, runtime: LoopRuntime) -> None:
    """What a block wrote is there if it ended well, and is not if it failed."""

    async def write(number: str, fail: bool) -> None:
        async with get_user_connection() as connection:
            await connection.execute("INSERT INTO documents (id, body) VALUES ($1, 'new')", number)
            if fail:
                raise ZeroDivisionError

    with as_user("alice"):
        runtime.run(write, "10", False)
        with pytest.raises(ZeroDivisionError):
            runtime.run(write, "11", True)
    assert configured.fetch("SELECT id, owner FROM documents WHERE body = 'new'") == [
        {"id": "10", "owner": "alice"}
    ]


def test_claims_reach_the_policies(configured, runtime: LoopRuntime) -> None:
    """What is known of the user beside the id can be asked for in SQL."""

    async def tenant() -> str:
        async with get_user_connection() as connection:
            return await connection.fetchval("SELECT current_setting('app.user_claims')::jsonb ->> 'tenant'")

    with as_user(User("alice", {"tenant": "acme"})):
        assert runtime.run(tenant) == "acme"


def test_role_of_the_transaction_can_be_set(database, runtime: LoopRuntime) -> None:
    """A setting named ``role`` lets a login role act with the rights of another, for the transaction."""
    database.fetch(f"CREATE ROLE {database.role}_reader")
    database.fetch(f"GRANT {database.role}_reader TO {database.role}")
    ConnectionPoolManager.configure(
        database.dsn, user_settings=lambda user: {"app.user_id": user.id, "role": f"{database.role}_reader"}
    )
    try:
        with as_user("alice"), pytest.raises(asyncpg.InsufficientPrivilegeError):
            runtime.run(bodies)
        database.fetch(f"GRANT SELECT ON documents TO {database.role}_reader")
        with as_user("alice"):
            assert runtime.run(bodies) == ["of alice"]
    finally:
        ConnectionPoolManager.close()
        ConnectionPoolManager.configure()
        database.fetch(f"REVOKE ALL ON documents FROM {database.role}_reader")
        database.fetch(f"DROP ROLE {database.role}_reader")


def test_user_is_told_by_context_alone(configured) -> None:
    """Tasks side by side have users of their own; afterwards there is none."""

    async def both() -> list[list[str]]:
        return await asyncio.gather(*(bodies_of(name) for name in ("alice", "bob") * 5))

    assert homeloop.run(both) == [["of alice"], ["of bob"]] * 5
    assert current_user() is None


def test_a_users_id_is_text() -> None:
    """A number from a database is refused where it comes in."""
    for make in (User, lambda number: as_user(number).__enter__()):
        with pytest.raises(TypeError, match="a user's id is a str"):
            make(5)  # type: ignore[operator]


def test_no_user_no_connection(configured, runtime: LoopRuntime) -> None:
    """Without a current user nothing is opened, and the error says what to call."""
    with pytest.raises(MissingUserError, match=r"homeloop\.as_user"):
        runtime.run(bodies)
    assert configured.connections() == 0
    assert ConnectionPoolManager.get_metrics()["active_pools"] == 0
    with pytest.raises(ValueError, match="must not be empty"):
        User("")


@pytest.mark.parametrize(
    ("door", "variable"),
    [(get_user_connection, "DATABASE_URL"), (get_service_connection, "SERVICE_DATABASE_URL")],
)
def test_missing_address_names_its_variable(
    door, variable: str, runtime: LoopRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody said where the database is: the error says how to; once said, it is read anew."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("SERVICE_DATABASE_URL", raising=False)

    async def enter() -> None:
        async with door():
            pass

    with as_user("alice"), pytest.raises(ConfigurationError, match=rf"set {variable} or call .*configure\("):
        runtime.run(enter)
    with pytest.raises(ConfigurationError, match="set DATABASE_URL"):
        runtime.run(ensure_async_pool_initialization)


def test_addresses_come_from_the_environment(
    database, runtime: LoopRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DATABASE_URL and SERVICE_DATABASE_URL are all the configuration that is needed."""
    monkeypatch.setenv("DATABASE_URL", database.dsn)
    monkeypatch.setenv("SERVICE_DATABASE_URL", database.service_dsn)
    runtime.run(ensure_async_pool_initialization)
    assert ConnectionPoolManager.get_metrics()["active_pools"] == 2
    with as_user("bob"):
        assert runtime.run(bodies) == ["of bob"]
    ConnectionPoolManager.close()


@pytest.mark.parametrize("mode", ["shared", "per_user"])
@pytest.mark.parametrize("exemption", ["superuser", "bypassrls", "member", "owner"])
def test_role_that_row_level_security_does_not_bind_is_refused(
    database, mode: str, exemption: str, runtime: LoopRuntime
) -> None:
    """A role for which the policies would not hold hands out no user's connection, and the error says why."""
    dsn, reason = database.dsn, f"may become '{database.role}_exempt'"
    database.fetch(f"CREATE ROLE {database.role}_exempt BYPASSRLS")
    try:
        if exemption == "superuser":
            dsn, reason = database.service_dsn, "is or may become .*'postgres'"
        elif exemption == "bypassrls":
            database.fetch(f"ALTER ROLE {database.role} BYPASSRLS")
            reason = f"is or may become '{database.role}'"
        elif exemption == "member":
            database.fetch(f"GRANT {database.role}_exempt TO {database.role}")
        else:
            database.fetch(f"ALTER TABLE documents OWNER TO {database.role}")
            reason = "owns 'documents'"
        ConnectionPoolManager.configure(dsn, mode=mode)
        with as_user("alice"), pytest.raises(UnsafeRoleError, match=reason) as caught:
            runtime.run(bodies)
        assert "NOSUPERUSER NOBYPASSRLS" in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    finally:
        ConnectionPoolManager.close()
        ConnectionPoolManager.configure()
        database.fetch(f"DROP ROLE {database.role}_exempt")
        database.fetch(f"ALTER ROLE {database.role} NOBYPASSRLS")
        database.fetch("ALTER TABLE documents OWNER TO CURRENT_USER")
        database.fetch(f"GRANT ALL ON documents TO {database.role}")


def test_waiting_for_a_connection_has_an_end(configured, runtime: LoopRuntime) -> None:
    """A block that takes a second connection of a pool of one is told so instead of waiting for itself."""
    ConnectionPoolManager.configure(configured.dsn, max_size=1, acquire_timeout=0.05)

    async def nested() -> None:
        async with get_user_connection():
            await bodies()

    with as_user("alice"):
        with pytest.raises(TimeoutError, match=r"acquire_timeout=0\.05 s: 1 of 1 are open, 0 of them idle"):
            runtime.run(nested)
        assert runtime.run(bodies) == ["of alice"]


def test_open_pools_are_not_configured_anew(configured, runtime: LoopRuntime) -> None:
    """Connections of two configurations never live side by side."""
    with as_user("alice"):
        runtime.run(bodies)
    with pytest.raises(ConfigurationError, match=r"ConnectionPoolManager\.close\(\)"):
        ConnectionPoolManager.configure()
    ConnectionPoolManager.close()
    ConnectionPoolManager.configure(configured.dsn)
    with as_user("alice"):
        assert runtime.run(bodies) == ["of alice"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "per-user"}, "mode is one of"),
        ({"pooler": "transaction"}, "pooler is None or 'session'"),
        ({"max_user_pools": 0}, "max_user_pools is at least 1"),
        ({"max_user_pool_idle": 0.0}, "max_user_pool_idle is in seconds"),
        ({"reset": None}, "reset cannot be set"),
        ({"min_size": -5}, "min_size is at least 0"),
        ({"min_size": 3, "max_size": 2}, "min_size is at most max_size=2"),
        ({"max_size": 1.5}, "max_size is at least 1, and whole"),
        ({"acquire_timeout": -1.0}, "acquire_timeout is in seconds"),
        ({"close_timeout": float("nan")}, "close_timeout is in seconds"),
        ({"max_user_pool_idle": float("nan")}, "max_user_pool_idle is in seconds"),
        ({"user_settings": None}, "user_settings is a function"),
        ({"comand_timeout": 5.0}, "takes no comand_timeout"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(configured, options: dict[str, Any], says: str) -> None:
    """By their own names, before a pool opens; what was configured before still holds."""
    before = ConnectionPoolManager.current()
    with pytest.raises(ValueError, match=says):
        ConnectionPoolManager.configure(**options)
    assert ConnectionPoolManager.current() is before


def test_settings_hold_as_the_server_writes_them(configured, runtime: LoopRuntime) -> None:
    """Values that the server puts into words of its own are not the block's change; none at all is allowed."""
    own = {"app.user_id": "alice", "statement_timeout": "5000", "timezone": "utc", "jit": "true"}

    async def change() -> None:
        async with get_user_connection() as connection:
            await connection.execute("SET LOCAL statement_timeout = 7")

    ConnectionPoolManager.configure(configured.dsn, max_size=1, user_settings=lambda _: own)
    with as_user("alice"):
        assert runtime.run(bodies) == ["of alice"]
        with pytest.raises(UserScopeError, match=r"the block changed 'statement_timeout',"):
            runtime.run(change)
        ConnectionPoolManager.close()
        ConnectionPoolManager.configure(configured.dsn, max_size=1, user_settings=lambda _: {})
        assert runtime.run(bodies) == []


def test_what_a_block_commits_itself_stays_and_the_error_says_so(configured, runtime: LoopRuntime) -> None:
    """It cannot be taken back."""

    async def block() -> None:
        async with get_user_connection() as connection:
            await connection.execute("INSERT INTO documents VALUES ('3', 'alice', 'kept'); COMMIT")

    with as_user("alice"):
        with pytest.raises(UserScopeError, match="what the block had committed itself stays"):
            runtime.run(block)
        assert "kept" in runtime.run(bodies)


def test_a_close_that_is_refused_on_one_loop_closes_the_other_kinds(configured) -> None:
    """What it says is what was done."""

    async def serve() -> None:
        async with get_service_connection():
            pass

    async def main() -> None:
        with as_user("alice"):
            await bodies()
        with pytest.raises(WrongThreadError, match="user pool"):
            ConnectionPoolManager.close()
        assert ConnectionPoolManager.get_metrics()["active_pools"] == 1

    with LoopRuntime() as runtime:
        runtime.run(serve)
        asyncio.run(main())
        assert ConnectionPoolManager.get_metrics()["active_pools"] == 0


def test_pools_that_are_opening_are_not_configured_anew(configured, runtime: LoopRuntime) -> None:
    """Nobody would find them again."""
    entered, gate = threading.Event(), threading.Event()

    async def wait(_: object) -> None:
        entered.set()
        await asyncio.to_thread(gate.wait, BOUND)

    ConnectionPoolManager.configure(configured.dsn, min_size=1, max_size=1, init=wait)
    warming = runtime.submit(ConnectionPoolManager.warm)
    assert entered.wait(BOUND)
    with pytest.raises(ConfigurationError, match="are open"):
        ConnectionPoolManager.configure()
    gate.set()
    warming.result(BOUND)


def test_a_connections_block_is_entered_once(configured, runtime: LoopRuntime) -> None:
    """Tasks that shared one would commit each other's transaction."""

    async def main() -> None:
        with as_user("alice"):
            block = get_user_connection()
            async with block:
                with pytest.raises(RuntimeError, match="entered once"):
                    await block.__aenter__()

    runtime.run(main, timeout=BOUND)
