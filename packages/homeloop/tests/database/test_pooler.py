"""PgBouncer between: poolers of sessions are fine if one says so, others are refused before anything is done."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from homeloop import LoopRuntime, as_user
from homeloop.database import ConnectionPoolManager, get_service_connection, get_user_connection
from homeloop.errors import ConfigurationError

PGBOUNCER = os.environ.get("TEST_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
pytestmark = [
    pytest.mark.needs("postgres"),
    pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer on the PATH; install it or set TEST_PGBOUNCER"),
]

BOUND = 10.0  # seconds
CONFIGURATION = """
[databases]
* = host={server.hostname} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = extra_float_digits
"""
Pooler = Callable[[str, int], str]


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server that is there when the block begins, and gone afterwards."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + BOUND
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), BOUND).close()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            yield
        finally:
            process.terminate()


@pytest.fixture
def pooler(database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """Start PgBouncer with a mode and a number of sessions; return the address of the database through it."""
    folder = tmp_path_factory.mktemp("pgbouncer")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)  # PgBouncer does not run as root
    server = urlsplit(database.server_dsn)
    (folder / "users").write_text(f'"{database.role}" "{database.role}"\n')
    with ExitStack() as stack:

        def start(mode: str, size: int) -> str:
            with socket.create_server(("127.0.0.1", 0)) as free:
                listen: int = free.getsockname()[1]
            configuration = folder / "pgbouncer.ini"
            configuration.write_text(
                CONFIGURATION.format(
                    server=server, port=server.port or 5432, folder=folder, listen=listen, mode=mode, size=size
                )
            )
            as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
            stack.enter_context(running([str(PGBOUNCER), *as_nobody, str(configuration)], listen))
            own = urlsplit(database.dsn)
            return own._replace(netloc=f"{own.username}:{own.password}@127.0.0.1:{listen}").geturl()

        yield start
        ConnectionPoolManager.close()
        ConnectionPoolManager.configure()
    deadline = time.monotonic() + BOUND
    while database.connections():  # the server hears of the pooler's end a moment later
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def as_alice() -> str:
    with as_user("alice"):
        async with get_user_connection() as connection:
            body: str = await connection.fetchval("SELECT string_agg(body, ',') FROM documents")
            await connection.execute("CREATE TEMPORARY TABLE loot AS SELECT * FROM documents")
            await connection.execute("SET search_path = pg_temp, public")
            return body


async def as_service() -> int:
    async with get_service_connection() as connection:
        number: int = await connection.fetchval("SELECT count(*) FROM pg_class WHERE relpersistence = 't'")
        return number


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_refused_unless_one_says_that_it_pools_sessions(
    mode: str, pooler: Pooler, runtime: LoopRuntime
) -> None:
    """By both doors, and the error says what to do."""
    dsn = pooler(mode, 1)
    ConnectionPoolManager.configure(dsn, service_dsn=dsn)
    for work in (as_alice, as_service):
        with pytest.raises(ConfigurationError, match=r"pooler.*configure\(pooler='session'\)"):
            runtime.run(work, timeout=BOUND)
    assert ConnectionPoolManager.get_metrics()["active_pools"] == 0


def test_a_pooler_of_sessions_is_as_good_as_none(pooler: Pooler, runtime: LoopRuntime) -> None:
    """Users one after the other and side by side see their own rows, and nothing that another one left."""
    dsn = pooler("session", 3)
    ConnectionPoolManager.configure(dsn, service_dsn=dsn, min_size=1, max_size=2, pooler="session")

    async def bob(number: int) -> int:
        with as_user("bob"):
            async with get_user_connection() as connection:
                assert await connection.fetchval("SHOW search_path") == '"$user", public'
                assert await connection.fetchval("SELECT array_agg(body) FROM documents") == ["of bob"]
                left: int = await connection.fetchval(
                    "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND oid > $1", number
                )
                return left

    async def main() -> None:
        assert await asyncio.gather(*(as_alice() for _ in range(10))) == ["of alice"] * 10
        assert await asyncio.gather(*(bob(number) for number in range(10))) == [0] * 10
        assert await as_service() == 0

    runtime.run(main, timeout=BOUND)
    ConnectionPoolManager.close()


def test_what_a_pooler_of_transactions_would_leave(pooler: Pooler) -> None:
    """Alice's temporary table and search path reach bob, who is another client: hence the refusal."""
    dsn = pooler("transaction", 1)

    async def main() -> str:
        alice = await asyncpg.connect(dsn, statement_cache_size=0)
        bob = await asyncpg.connect(dsn, statement_cache_size=0)
        async with alice.transaction():
            await alice.execute("CREATE TEMPORARY TABLE documents AS SELECT 'forged' AS body")
            await alice.execute("SET search_path = pg_temp, public")
        async with bob.transaction():
            read: str = await bob.fetchval("SELECT body FROM documents")
        await alice.close()
        await bob.close()
        return read

    assert asyncio.run(main()) == "forged"
