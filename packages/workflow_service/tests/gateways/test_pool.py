"""The pool of database connections: neither a frozen worker nor a silent server is waited for without end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from relay import relay

from workflow_service.domain.run import NewRun
from workflow_service.gateways.postgres import connection as connection_module
from workflow_service.gateways.postgres import pool as pool_module
from workflow_service.gateways.postgres.connection import open_connection, open_session
from workflow_service.gateways.postgres.pool import lend, open_pool
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import StoreUnavailableError

pytestmark = pytest.mark.needs("postgres")

PROGRAM = Path(__file__).with_name("programs") / "claim.py"
GATE = 7_094_823_518  # an advisory lock: who writes an event waits for it
CLOSE_GATE = f"""
CREATE FUNCTION workflow.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({GATE});
    RETURN NEW;
END $$;
CREATE TRIGGER gate BEFORE INSERT ON workflow.run_events FOR EACH ROW EXECUTE FUNCTION workflow.wait_at_gate();
SELECT pg_advisory_lock({GATE});
"""
OPEN_GATE = f"SELECT pg_advisory_unlock({GATE})"
REMOVE_GATE = "DROP TRIGGER gate ON workflow.run_events; DROP FUNCTION workflow.wait_at_gate"
WAITING_AT_GATE = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
HAS_ANSWERED = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
SESSION = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    """Wait until ``look`` returns something true; the scenario has a bound."""
    while not await look():  # noqa: ASYNC110  another process is waited for
        await asyncio.sleep(0.01)


def test_a_worker_frozen_in_a_transaction_gives_its_run_free(with_pool: Any, database: str) -> None:
    """SIGSTOP while it claims: the server drops its lock after the lease, another worker takes the run, and the
    frozen one, once it goes on, is told that the database ended its transaction."""

    async def scenario(pool: Any) -> None:
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NewRun("alice", "review", {}))
        async with pool.acquire() as gatekeeper:
            await gatekeeper.execute(CLOSE_GATE)
            worker = await asyncio.create_subprocess_exec(
                sys.executable, str(PROGRAM), database, str(run.id), "0.5", stdout=subprocess.PIPE
            )
            try:
                await until(lambda: pool.fetchval(WAITING_AT_GATE))
                session = await pool.fetchval(SESSION)
                os.kill(worker.pid, signal.SIGSTOP)
                await gatekeeper.execute(OPEN_GATE)
                await until(lambda: pool.fetchval(HAS_ANSWERED, session))

                claim = await store.claim(run.id, "another", 60.0)

                assert claim is not None
                assert claim.run.attempt == 1
                os.kill(worker.pid, signal.SIGCONT)
                told, _ = await worker.communicate()
                assert b"StoreUnavailableError: the database did not answer (the server ended the session)" in told
            finally:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
                await gatekeeper.execute(REMOVE_GATE)

    with_pool(scenario)


@pytest.mark.parametrize("turns", range(5))
def test_a_transaction_that_stood_still_too_long_is_the_stores_fault(database: str, turns: int) -> None:
    """However much of the server's farewell the loop has read when the next statement comes."""

    async def scenario() -> None:
        async with (
            open_pool(database, 1, 0.05) as pool,
            open_connection(lambda: lend(pool)) as connection,
            connection.transaction(),
        ):
            session = await connection.fetchval("SELECT pg_backend_pid()")
            with psycopg.connect(database, autocommit=True) as other:  # blocks the loop: it has read nothing yet
                ended = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
                while not (row := other.execute(ended, (session,)).fetchone()) or not row[0]:
                    pass
            for _ in range(turns):
                await asyncio.sleep(0)
            await connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailableError):
        asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_server_that_falls_silent_is_given_up(
    database: str, monkeypatch: pytest.MonkeyPatch, in_transaction: bool
) -> None:
    """Neither a statement, nor the ROLLBACK after it, nor a new connection waits without end; and when the server
    speaks again, so does the pool."""
    parts = urlsplit(database)
    monkeypatch.setattr(pool_module, "_COMMAND_TIMEOUT", 0.1)
    monkeypatch.setattr(pool_module, "_SESSION_TIMEOUT", 0.3)
    monkeypatch.setattr(pool_module, "_RELEASE_TIMEOUT", 0.1)
    monkeypatch.setattr(pool_module, "_ACQUIRE_TIMEOUT", 0.5)

    async def ask(pool: Any) -> Any:
        async with open_connection(lambda: lend(pool)) as connection:
            if not in_transaction:
                return await connection.fetchval("SELECT 1")
            async with connection.transaction():
                return await connection.fetchval("SELECT 1")

    async def scenario(url: str, between: Any) -> None:
        async with open_pool(url, 1, 30.0) as pool:
            assert await ask(pool) == 1
            between.fall_silent()
            for _ in range(3):
                with pytest.raises(StoreUnavailableError):
                    await ask(pool)
            between.speak_again()
            assert await ask(pool) == 1

    with relay(parts.hostname or "127.0.0.1", parts.port or 5432) as between:
        url = parts._replace(netloc=f"{parts.username}:{parts.password or ''}@127.0.0.1:{between.port}").geturl()
        asyncio.run(asyncio.wait_for(scenario(url, between), 60))


def test_what_was_done_stands_when_its_connection_cannot_be_given_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that cannot be made fit for the next one is closed; the borrower has its answer."""
    monkeypatch.setattr(pool_module, "_RELEASE_TIMEOUT", 0.1)

    async def scenario() -> None:
        async with open_pool(database, 1, 30.0) as pool:
            async with lend(pool) as connection:
                session = await connection.fetchval("SELECT pg_backend_pid()")
                other = await asyncpg.connect(database)
                await other.execute("SELECT pg_terminate_backend($1, 10000)", session)
                await other.close()
            async with lend(pool) as connection:
                assert await connection.fetchval("SELECT pg_backend_pid()") != session

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_cancellation_is_one_though_the_server_is_silent(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ROLLBACK that gets no answer is not what the caller hears of, nor waited for so long."""
    parts = urlsplit(database)
    monkeypatch.setattr(pool_module, "_RELEASE_TIMEOUT", 0.1)
    monkeypatch.setattr(connection_module, "_ROLLBACK_TIMEOUT", 0.1)

    async def scenario() -> None:
        with relay(parts.hostname or "127.0.0.1", parts.port or 5432) as stand_in:
            netloc = f"{parts.username}:{parts.password or ''}@127.0.0.1:{stand_in.port}"
            async with open_pool(parts._replace(netloc=netloc).geturl(), 1, 60.0) as pool:
                is_silent = asyncio.Event()

                async def ask() -> None:
                    async with open_session(lambda: lend(pool), "alice") as connection:
                        stand_in.fall_silent()
                        asyncio.get_running_loop().call_soon(is_silent.set)
                        await connection.execute("SELECT 1")

                asking = asyncio.create_task(ask())
                await is_silent.wait()
                asking.cancel()
                await asyncio.wait([asking])
                assert asking.cancelled(), asking.exception()
                stand_in.speak_again()
                async with open_session(lambda: lend(pool), "alice") as connection:
                    assert await connection.fetchval("SELECT 1") == 1

    asyncio.run(asyncio.wait_for(scenario(), 60))
