"""The embedded PostgreSQL: private, on 127.0.0.1 alone, and there again after whatever happened."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool
from workflow_service.gateways.postgres.migrator import migrate
from workflow_service.local.binaries import is_readable_by_all, wheel_programs
from workflow_service.local.children import Child
from workflow_service.local.errors import ChildDiedError, DatabaseError
from workflow_service.local.home import Home
from workflow_service.local.os_user import database_user
from workflow_service.local.postgresql import PostgreSQL, Server, kept_cluster
from workflow_service.local.supervisor import Supervisor
from workflow_service.ports import StoreUnavailableError

from .conftest import DEADLINE, Supervised, eventually, lives

ENDLESS = "DO $$ BEGIN LOOP END LOOP; END $$"


@contextlib.asynccontextmanager
async def running(home: Home) -> AsyncIterator[tuple[Supervisor, Server]]:
    """Run the home's server; its death does not end the block, so that the block can look at it."""
    with home.locked():
        async with Supervisor(home) as supervisor:
            yield supervisor, await PostgreSQL(supervisor, durable=False).start()


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(server.url, ssl=False)
    try:
        yield connection
    finally:
        connection.terminate()


def test_service_role_owns_its_database_and_is_bound_by_row_level_security(home: Home) -> None:
    """The URL leads to a role that is no superuser, cannot bypass row level security, and may make tables."""

    async def main() -> None:
        async with running(home) as (_, server), connected(server) as connection:
            role = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
            assert role is not None
            assert not any(role[right] for right in ("rolsuper", "rolbypassrls", "rolcreatedb", "rolcreaterole"))
            await connection.execute("CREATE TABLE kept (n int)")
            settings = await connection.fetchrow(
                "SELECT current_setting('server_encoding'), current_setting('TimeZone')"
            )
            assert tuple(settings or ()) == ("UTF8", "UTC")

    asyncio.run(main())


@pytest.mark.parametrize("user", ["workflow", "postgres"])
@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_password_is_refused(home: Home, user: str, password: str) -> None:
    """Nobody gets in without the password, not even from this machine."""

    async def main() -> None:
        async with running(home) as (_, server):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(
                    host="127.0.0.1",
                    port=server.port,
                    user=user,
                    password=password,
                    database="postgres",
                    ssl=False,
                )

    asyncio.run(main())


def test_it_listens_on_loopback_only(home: Home) -> None:
    """The only door is one TCP port on 127.0.0.1: no other address, no Unix socket."""

    async def main() -> None:
        async with running(home) as (_, server):
            postmaster = psutil.Process(server.child.pid)
            doors = [door for door in postmaster.net_connections("inet") if door.status == psutil.CONN_LISTEN]
            assert [tuple(door.laddr) for door in doors] == [("127.0.0.1", server.port)]
            assert [door.laddr for door in postmaster.net_connections("unix") if ".s.PGSQL" in door.laddr] == []

    asyncio.run(main())


def test_files_are_private(home: Home) -> None:
    """Home, data and logs are closed to others; no password is in a command line or left from initdb."""

    async def main() -> None:
        async with running(home) as (supervisor, server):
            cluster = PostgreSQL(supervisor).cluster
            for folder in (home.path, home.logs, home.processes, cluster.place, cluster.data):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
            for file in (*home.path.glob("*.json"), *home.logs.iterdir(), *home.processes.iterdir()):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert sorted(path.name for path in cluster.place.iterdir()) == ["data"]
            commands = [process.cmdline() for process in psutil.process_iter() if process.pid == server.child.pid]
            assert not any(cluster.password in part or cluster.superuser_password in part for part in commands[0])
            assert os.geteuid() == 0 or cluster.data.is_relative_to(home.path)

    asyncio.run(main())


def test_restart_keeps_data(home: Home) -> None:
    """What was committed is there after a stop and a start."""

    async def main() -> None:
        async with running(home) as (_, server), connected(server) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        assert not lives(server.child.pid)
        async with running(home) as (_, server), connected(server) as connection:
            assert await connection.fetchval("SELECT answer FROM kept") == 42

    asyncio.run(main())


def test_killed_server_is_reported_and_starts_again_with_its_data(home: Home) -> None:
    """kill -9 of the server, a backend in an endless loop with it: reported at once; the next start recovers."""

    async def until_killed() -> Child:
        with home.locked():
            async with Supervisor(home) as supervisor:

                async def body() -> None:
                    server = await PostgreSQL(supervisor).start()
                    async with connected(server) as connection, connected(server) as busy:
                        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
                        backend = busy.get_server_pid()
                        endless = asyncio.create_task(busy.execute(ENDLESS))
                        is_active = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
                        while not await connection.fetchval(is_active, backend):  # noqa: ASYNC110
                            await asyncio.sleep(0)
                        os.kill(server.child.pid, signal.SIGKILL)
                        with contextlib.suppress(asyncpg.PostgresError, OSError):
                            await endless

                await supervisor.run(body)

    async def again() -> None:
        async with running(home) as (_, server), connected(server) as connection:
            assert await connection.fetchval("SELECT answer FROM kept") == 42

    with pytest.raises(ChildDiedError, match=r"PostgreSQL .* was ended by SIGKILL") as caught:
        asyncio.run(asyncio.wait_for(until_killed(), DEADLINE))
    assert caught.value.log == home.logs / "postgresql.log"
    asyncio.run(asyncio.wait_for(again(), DEADLINE))


def test_killed_supervisor_leaves_no_server_after_the_next_start(
    home: Home, supervise: Callable[..., Supervised]
) -> None:
    """kill -9 of the supervisor leaves its server running; the next start ends it and serves the same data."""
    first = supervise(postgresql=True)
    url, postmaster = first.told("url"), first.told("pids")["PostgreSQL"]
    first.process.kill()
    first.wait()
    assert lives(postmaster)
    for file in home.processes.iterdir():
        file.unlink()  # killed before it had written the record: the data directory still tells

    second = supervise(postgresql=True)

    assert urlsplit(second.told("url")).password == urlsplit(url).password
    assert second.told("pids")["PostgreSQL"] != postmaster
    assert not lives(postmaster)


def test_pid_file_that_names_a_stranger_is_no_obstacle(home: Home) -> None:
    """After a restart of the machine the recorded pid is somebody else's: the server starts, they live on."""
    user = database_user()
    stranger = subprocess.Popen(
        ["sleep", "600"],
        cwd="/",
        user=None if user is None else user.uid,
        extra_groups=None if user is None else [],
    )

    async def main() -> None:
        async with running(home):
            pass
        cluster = kept_cluster(home)
        assert cluster is not None
        pid_file = cluster.data / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{cluster.data}\n1\n5432\n\n127.0.0.1\n0 0\nready\n")
        if user is not None:
            os.chown(pid_file, user.uid, user.gid)
        async with running(home):
            assert lives(stranger.pid)

    try:
        asyncio.run(main())
    finally:
        stranger.kill()
        stranger.wait()


def test_taken_port_is_given_up_for_another(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between choosing a port and listening on it somebody else may take it: then the next one is tried."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        ports = iter([taken, free])
        monkeypatch.setattr("workflow_service.local.postgresql._free_port", lambda: next(ports))

        async def main() -> int:
            async with running(home) as (_, server):
                return server.port

        assert asyncio.run(asyncio.wait_for(main(), DEADLINE)) == free


def test_other_major_version_is_refused(home: Home) -> None:
    """Data of another PostgreSQL is left untouched, and the message names both versions."""

    async def main() -> None:
        async with Supervisor(home) as supervisor:
            postgresql = PostgreSQL(supervisor)
            postgresql.cluster.data.mkdir(parents=True)
            (postgresql.cluster.data / "PG_VERSION").write_text("16\n")
            await postgresql.start()

    with pytest.raises(DatabaseError, match="made by PostgreSQL 16, and this is PostgreSQL 18"):
        asyncio.run(main())


def test_interrupted_initialisation_is_done_again(home: Home) -> None:
    """A data directory that initdb did not finish is never taken for one."""

    async def main() -> None:
        async with Supervisor(home) as supervisor:
            half = PostgreSQL(supervisor).cluster.place / "new"
            half.mkdir(parents=True)
            (half / "PG_VERSION").write_text("18\n")
        async with running(home) as (_, server), connected(server) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert not half.exists()

    asyncio.run(main())


def test_server_that_does_not_start_shows_its_log(home: Home) -> None:
    """A server that ends before it accepts connections is an error that points at its log."""

    async def main() -> None:
        async with running(home):
            pass
        cluster = kept_cluster(home)
        assert cluster is not None
        with (cluster.data / "postgresql.conf").open("a") as conf:
            conf.write("nonsense = 1\n")
        async with running(home):
            pass

    with pytest.raises(DatabaseError, match="exited with 1 before it accepted connections") as caught:
        asyncio.run(main())
    assert caught.value.log is not None
    assert "nonsense" in caught.value.log.read_text()


@pytest.fixture
def ordinary() -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder of an ordinary user's, and what makes a supervisor that user's; for root that is PostgreSQL's."""
    user = database_user()
    place = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        if user is None:
            yield place, {}
        elif is_readable_by_all(wheel_programs()):
            os.chown(place, user.uid, user.gid)
            yield place, {"ids": [user.uid, user.gid]}
        else:
            pytest.skip("other users cannot read this virtual environment")
    finally:
        shutil.rmtree(place)


def test_lost_passwords_are_refused(ordinary: tuple[Path, dict[str, Any]]) -> None:
    """A database whose passwords are gone is neither used nor overwritten."""
    place, user = ordinary  # root gets another one at each start
    home, spec = place / "home", {"postgresql": True, **user}
    with contextlib.closing(Supervised(home, spec)) as supervised:
        supervised.told("pids")
        supervised.process.terminate()
        assert supervised.wait() == 0
    (home / "postgresql.json").unlink()
    with contextlib.closing(Supervised(home, spec)) as supervised:
        assert re.search("passwords, .* are gone", supervised.next_line()["error"])
        assert supervised.wait() == 1
    assert (home / "postgresql" / "data" / "PG_VERSION").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test shows it already")
def test_ordinary_user_needs_nothing_of_root(ordinary: tuple[Path, dict[str, Any]]) -> None:
    """Run by an ordinary user, everything lies in the home and belongs to that user."""
    place, user = ordinary
    with contextlib.closing(Supervised(place / "home", {"postgresql": True, **user})) as supervised:
        postmaster = psutil.Process(supervised.told("pids")["PostgreSQL"])
        assert postmaster.uids().real == user["ids"][0]
        assert json.loads((place / "home" / "postgresql.json").read_text())["place"] == str(
            place / "home/postgresql"
        )
        supervised.process.terminate()
        assert supervised.wait() == 0
        eventually(lambda: not lives(postmaster.pid), "PostgreSQL has ended")


def test_a_worker_frozen_while_it_writes_a_checkpoint_gives_its_locks_free(home: Home) -> None:
    """It writes in a pipeline, where the server sees no idle transaction; the release that is embedded ends it."""

    async def main() -> None:
        async with running(home) as (_, server), connected(server) as other:
            await migrate(server.url)
            with pytest.raises(StoreUnavailableError):  # noqa: PT012  one block is one statement
                async with (
                    open_checkpoint_pool(server.url, 1, 0.3) as pool,
                    pool.connection() as connection,
                    connection.pipeline(),
                ):
                    locked = await connection.execute("SELECT pg_advisory_xact_lock(1)")
                    await locked.fetchone()  # the pipeline is open, and so is its transaction
                    await other.execute("SELECT pg_advisory_lock(1)", timeout=DEADLINE)

    asyncio.run(main())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"place": 1, "superuser_password": "", "password": ""}'])
def test_damaged_file_of_the_home_is_named(home: Home, text: str) -> None:
    """The error says which file it is and what to do; the file stays as it is."""
    file = home.path / "postgresql.json"
    file.write_text(text)
    try:
        with home.locked(), pytest.raises(DatabaseError, match=r"postgresql\.json does not say"):
            asyncio.run(_prepare(home))
        assert file.read_text() == text
    finally:
        file.unlink()


async def _prepare(home: Home) -> None:
    async with Supervisor(home) as supervisor:
        PostgreSQL(supervisor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's databases lie outside of their homes")
def test_database_of_root_is_noted_with_its_home_and_forgotten_with_it(home: Home) -> None:
    """So a later start knows whose it was."""

    async def main() -> None:
        async with running(home):
            pass

    asyncio.run(main())
    cluster = kept_cluster(home)
    assert cluster is not None
    note = cluster.place.with_name(f"{cluster.place.name}.home")
    assert json.loads(note.read_text())["home"] == str(home.path)
    cluster.remove()
    assert not note.exists()
