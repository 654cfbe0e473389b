"""The embedded PostgreSQL: a cluster that belongs to one home and listens on 127.0.0.1 alone."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from workflow_service.local import binaries
from workflow_service.local.abandoned import AbandonedDatabase, forget_home, note_home, remove_abandoned
from workflow_service.local.children import Child, Command
from workflow_service.local.errors import DatabaseError
from workflow_service.local.home import Home, write_private
from workflow_service.local.os_user import OsUser, database_user
from workflow_service.local.records import Stopping, end_process, is_alive
from workflow_service.local.supervisor import Supervisor

ROLE = "workflow"
"""The role the service uses, and its database: it owns the database, and row level security binds it."""
_BOUND_ROLE = "workflow_service_user"  # what the service becomes while it works for a user: it owns no table

_FILE = "postgresql.json"
_SUPERUSER = "postgres"
_HOST = "127.0.0.1"
_ROOT_STATE = Path("/var/lib/workflow-service")  # for root: a home is closed to the user PostgreSQL runs as
_FAST, _IMMEDIATE = int(signal.SIGINT), int(signal.SIGQUIT)
_STOPPING: Stopping = ((_FAST, 10.0), (_IMMEDIATE, 5.0))
_START_BOUND = 60.0  # seconds; recovery after a crash may take long
_LOOK = 0.02  # seconds between two attempts to connect to a server that is starting
_PORT_ATTEMPTS = 5  # a free port may be taken by somebody else before the server listens on it


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory and the passwords to it. ``place`` holds ``data`` and nothing else of value."""

    place: Path
    superuser_password: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.place / "data"

    @classmethod
    def of(cls, home: Home, user: OsUser | None) -> "Cluster":
        """Return the home's cluster; the first call decides its place and passwords and writes them down, 0600.

        Raises:
            DatabaseError: There is a data directory whose passwords are gone.
        """
        file = home.path / _FILE
        kept = kept_cluster(home)
        if kept is not None:
            return kept
        place = home.path / "postgresql" if user is None else _ROOT_STATE / secrets.token_hex(8)
        if place.exists():
            raise DatabaseError(
                f"{place} holds a database but its passwords, {file}, are gone; put the file back from a copy, "
                "or move the folder away to start with an empty database"
            )
        cluster = cls(place, secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        write_private(file, json.dumps({**asdict(cluster), "place": str(place)}))
        return cluster

    def url(self, port: int) -> str:
        """Return how the service reaches its database, password included."""
        return f"postgresql://{ROLE}:{self.password}@{_HOST}:{port}/{ROLE}"

    def remove(self) -> None:
        """Delete the data; the server must have stopped."""
        shutil.rmtree(self.place, ignore_errors=True)
        forget_home(self.place)


def kept_cluster(home: Home) -> Cluster | None:
    """Return the cluster a home has; None if it has none yet.

    Raises:
        DatabaseError: The file that tells is damaged.
    """
    file = home.path / _FILE
    try:
        kept = json.loads(file.read_text())
        return Cluster(Path(kept["place"]), str(kept["superuser_password"]), str(kept["password"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise DatabaseError(
            f"{file} does not say where the database lies and what its passwords are; put it back from a copy, "
            "or choose a new home with --home DIR to start with an empty database"
        ) from exc


def remove_abandoned_databases() -> list[AbandonedDatabase]:
    """Remove root's databases whose homes have been gone for a day; return all whose homes are gone.

    For users other than root there are none: their databases lie in their homes.
    """
    return remove_abandoned(_ROOT_STATE, _FILE) if os.geteuid() == 0 else []


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    child: Child
    port: int
    url: str


class _PortTakenError(DatabaseError):
    """Somebody else listened on the port first."""


class PostgreSQL:
    """Prepares the cluster of a home and starts its server under a supervisor."""

    def __init__(self, supervisor: Supervisor, *, durable: bool = True) -> None:
        """Find the programs, the user and the cluster.

        Args:
            supervisor: Starts and watches the server. Its home's lock is held.
            durable: Wait for the disk at each commit. False is for data that nobody needs after a crash.

        Raises:
            DatabaseError: One of them cannot be had; the message says what to do.
        """
        self._supervisor = supervisor
        self._durable = durable
        self._user = database_user()
        if self._user is None:
            self._programs = binaries.wheel_programs() / "bin"
        else:
            _make_reachable(_ROOT_STATE)
            self._programs = binaries.programs_for_others(_ROOT_STATE) / "bin"
        self.cluster = Cluster.of(supervisor.home, self._user)
        self._log = supervisor.home.logs / "postgresql.log"

    async def start(self) -> Server:
        """Initialise the cluster if it is new, start the server, and see to it that role and database exist.

        Raises:
            DatabaseError: The data directory is of another major version, or the server does not start.
        """
        self._check_version()
        await self._end_leftover()
        if self._user is not None:
            note_home(self.cluster.place, self._supervisor.home.path)
        if not self.cluster.data.exists():
            await self._initialise()
        for _ in range(_PORT_ATTEMPTS - 1):
            with suppress(_PortTakenError):
                return await self._start_on(_free_port())
        return await self._start_on(_free_port())

    async def _start_on(self, port: int) -> Server:
        log_start = self._log.stat().st_size if self._log.exists() else 0
        # Not vital yet: whether its end is the end of everything depends on why.
        child = self._supervisor.start(self._server_command(port), on_death=lambda _: None)
        connection = await self._connect(child, port)
        if connection is None:
            with self._log.open("rb") as log:
                log.seek(log_start)
                kind = _PortTakenError if b"could not bind" in log.read() else DatabaseError
            raise kind(f"{child.obituary()} before it accepted connections", self._log)
        try:
            await _ensure_role_and_database(connection, self.cluster.password)
        finally:
            await connection.close(timeout=5)
        self._supervisor.make_vital(child)
        return Server(child, port, self.cluster.url(port))

    def _check_version(self) -> None:
        file = self.cluster.data / "PG_VERSION"
        try:
            major = file.read_text().strip()
        except FileNotFoundError:
            return
        if major != str(binaries.MAJOR):
            raise DatabaseError(
                f"{self.cluster.data} was made by PostgreSQL {major}, and this is PostgreSQL {binaries.MAJOR}; "
                f"dump it with the older release and restore it here, or choose another home with --home DIR"
            )

    async def _initialise(self) -> None:
        place = self.cluster.place
        place.mkdir(mode=0o700, exist_ok=True)
        draft, password = place / "new", place / "password"
        shutil.rmtree(draft, ignore_errors=True)  # of an attempt that was cut short
        write_private(password, self.cluster.superuser_password)
        if self._user is not None:
            os.chown(password, self._user.uid, self._user.gid)
            os.chown(place, self._user.uid, self._user.gid)
        try:
            code = await self._supervisor.run_to_end(self._init_command(draft, password))
        finally:
            password.unlink()
        if code != 0:
            raise DatabaseError(
                f"PostgreSQL could not make its data directory {draft}: initdb exited with {code}", self._log
            )
        draft.rename(self.cluster.data)  # whole or not at all: initdb writes PG_VERSION long before it is done

    def _init_command(self, draft: Path, password: Path) -> Command:
        options = [
            f"--pgdata={draft}",
            f"--username={_SUPERUSER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            # The same order and character classes on every system, whatever its locale.
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--set=timezone=UTC",
            "--set=log_timezone=UTC",
        ]
        return self._command("initdb", [*options, *([] if self._durable else ["--no-sync"])], ((_FAST, 5.0),))

    def _server_command(self, port: int) -> Command:
        settings = {
            "listen_addresses": _HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "synchronous_commit": "on" if self._durable else "off",
        }
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return self._command("postgres", ["-D", str(self.cluster.data), *options], _STOPPING)

    def _command(self, program: str, options: list[str], stopping: Stopping) -> Command:
        # The environment of the caller may carry PGDATA, PGOPTIONS and the like; the server takes nothing of it.
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        name = "PostgreSQL" if program == "postgres" else program
        return Command(name, (str(self._programs / program), *options), self._log, env, stopping, self._user)

    async def _connect(self, child: Child, port: int) -> "asyncpg.Connection[asyncpg.Record] | None":
        """Return a superuser's connection as soon as the server takes one; None if the server ended first."""
        # Side by side: whoever took the port before our server may accept a connection and never say a word.
        attempt, ended = asyncio.create_task(self._connect_when_ready(port)), asyncio.create_task(child.wait())
        both: tuple[asyncio.Task[Any], ...] = (attempt, ended)  # Any: a connection or an exit code
        try:
            await asyncio.wait(both, timeout=_START_BOUND, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return None
            if attempt.done():
                return attempt.result()
        except asyncpg.InvalidPasswordError as exc:
            raise DatabaseError(
                f"{child} refuses the password in {self._supervisor.home.path / _FILE}; put back the file that "
                "belongs to this database",
                self._log,
            ) from exc
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        raise DatabaseError(f"{child} accepted no connection within {_START_BOUND:.0f} s", self._log)

    async def _connect_when_ready(self, port: int) -> "asyncpg.Connection[asyncpg.Record]":
        while True:
            with suppress(OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
                return await asyncpg.connect(
                    host=_HOST,
                    port=port,
                    user=_SUPERUSER,
                    password=self.cluster.superuser_password,
                    database="postgres",
                    ssl=False,
                )
            await asyncio.sleep(_LOOK)

    async def _end_leftover(self) -> None:
        """End what is left of a server on our data, and remove the pid file of one that is gone.

        PostgreSQL takes any living process with the pid in that file for its predecessor; after a restart of
        the machine or container that pid is somebody else's. So processes are known by program and directory.
        """
        pid_file = self.cluster.data / "postmaster.pid"
        if not pid_file.exists():
            return
        data = self.cluster.data.resolve()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if Path(process.cwd()) == data and Path(process.exe()).name.startswith("postgres"):
                    # A backend whose postmaster is gone still holds the shared memory; it ends by SIGQUIT.
                    await end_process(process, ((_FAST, 2.0), (_IMMEDIATE, 2.0)))
        with suppress(FileNotFoundError, ValueError, psutil.Error):
            owner = psutil.Process(int(pid_file.read_text().splitlines()[0]))
            if is_alive(owner) and Path(owner.cwd()) == data:
                return
        pid_file.unlink(missing_ok=True)


def _make_reachable(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if folder.stat().st_uid == 0:
            folder.chmod(0o755)
    except OSError as exc:
        raise DatabaseError(
            f"the data of a service run as root goes to {folder}, which cannot be made: {exc}; "
            "run as an ordinary user, or point DATABASE_URL at a PostgreSQL server of yours"
        ) from exc


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _ensure_role_and_database(connection: "asyncpg.Connection[asyncpg.Record]", password: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", ROLE):
        statement = await connection.fetchval(
            f"SELECT format('CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE"
            " PASSWORD %L', $1::text)",
            password,
        )
        await connection.execute(statement)
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", _BOUND_ROLE):
        await connection.execute(f"CREATE ROLE {_BOUND_ROLE} NOLOGIN; GRANT {_BOUND_ROLE} TO {ROLE}")
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", ROLE):
        await connection.execute(f"CREATE DATABASE {ROLE} OWNER {ROLE}")
