"""The whole service on one machine: PostgreSQL, worker and API of one home, started in this order."""

import asyncio
import errno
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil

from workflow_service.local.children import Child, Command
from workflow_service.local.errors import HomeError, LocalError, NotReadyError
from workflow_service.local.home import Home, write_private
from workflow_service.local.postgresql import PostgreSQL
from workflow_service.local.programs import SERVE_API, TELL_STACKS, worker_arguments
from workflow_service.local.records import ProcessRecord, Stopping
from workflow_service.local.supervisor import Supervisor
from workflow_service.local.worker_keeper import WorkerDeath, WorkerKeeper

T = TypeVar("T")

# SIGTERM: finish what runs. SIGQUIT: give longer runs back, else they wait for their lease after the next start.
_WORKER_STOPPING: Stopping = ((int(signal.SIGTERM), 10.0), (int(signal.SIGQUIT), 5.0))
_API_STOPPING: Stopping = ((15, 6.0),)
_API_DRAIN = 3  # seconds for open event streams, which would else never end
_READY_BOUND = 60.0  # seconds until the API must answer that it is ready
_LOOK = 0.05  # seconds between two questions to an API that says it is not ready yet
_BACKLOG = 2048
_FOLDERS = ("WORKFLOW_DEFINITIONS",)  # settings that may be relative: the processes run in another folder
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  where to connect if it listens on all addresses


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose. URLs that are None are served from the home; keys that are None are kept there.

    ``worker_silence`` is in seconds: so long a worker may be frozen until it is replaced; 0 is for ever.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    concurrency: int = 8
    durable: bool = True
    worker_silence: float = 30.0
    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)
    api_keys: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a running service: what ``connection.json`` in its home holds."""

    supervisor: int
    supervisor_created: float
    address: str
    concurrency: int
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    api_keys: dict[str, str] = field(repr=False)

    @property
    def key(self) -> str:
        """The first user's API key."""
        return next(iter(self.api_keys.values()))

    @classmethod
    def of(cls, home: Path) -> Self:
        """Read how to reach the service that runs on a home.

        Raises:
            HomeError: None runs there.
        """
        advice = f"start it with: workflow-service up --home {shlex.quote(str(home))}"
        try:
            connection = cls(**json.loads((home / "connection.json").read_text()))
        except (OSError, ValueError, TypeError) as exc:
            raise HomeError(f"no service runs on {home}: {exc}; {advice}") from exc
        record = ProcessRecord("", connection.supervisor, connection.supervisor_created, (), ())
        if record.process() is None:
            raise HomeError(
                f"the service on {home} (process {connection.supervisor}) is no longer there; {advice}"
            )
        return connection

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of the service's processes: ours, with the settings of this service."""
        folders = {name: str(Path(os.environ[name]).absolute()) for name in _FOLDERS if os.environ.get(name)}
        environment = {
            **os.environ,
            **folders,
            "WORKFLOW_HOME": str(home),
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "WORKFLOW_API_KEYS": json.dumps(self.api_keys),
            "PYTHONUNBUFFERED": "1",
        }
        if not environment.get("WORKFLOW_WEBHOOK_SECRETS"):
            environment["WORKFLOW_WEBHOOK_SECRETS"] = json.dumps([Home(home).webhook_secret()])
        return environment


class LocalService:
    """Starts the service on a home under a supervisor."""

    def __init__(self, supervisor: Supervisor, options: Options) -> None:
        self._supervisor = supervisor
        self._home = supervisor.home
        self._options = options
        self._keeper: WorkerKeeper | None = None

    async def start(self, on_worker_death: Callable[[WorkerDeath], None] | None = None) -> Connection:
        """Start everything and return once the API says that it is ready. `close` comes before the supervisor's.

        Args:
            on_worker_death: Called when the worker ends by itself, or was frozen and had to be killed; after an
                error, a crash and that it is started again. Without this, its end ends the supervisor's run.

        Raises:
            LocalError: A part did not start; its message says which, and ``log`` where to look.
        """
        rotate_logs(self._home)
        with _listen(self._options.host, self._options.port) as listener:
            connection = await self._prepare(listener)
            worker = worker_command(self._home, connection)
            if on_worker_death is None:
                self._supervisor.start(worker)
            else:
                pulse = self._home.path / "worker.pulse"
                worker = replace(worker, env={**worker.env, "WORKFLOW_WORKER_PULSE": str(pulse)})
                silence = self._options.worker_silence
                self._keeper = WorkerKeeper(self._supervisor, worker, pulse, silence, on_worker_death)
                self._keeper.start()
            api = self._supervisor.start(self._api_command(connection, listener.fileno()))
            # From here the API alone holds the socket: when it dies, connections break instead of hanging.
        await _wait_ready(connection, api)
        return connection

    def close(self) -> None:
        """Start no worker any more."""
        if self._keeper is not None:
            self._keeper.close()

    async def _prepare(self, listener: socket.socket) -> Connection:
        options = self._options
        host, port = str(listener.getsockname()[0]), int(listener.getsockname()[1])
        host = _ANY.get(host, host)
        shown = f"[{host}]" if ":" in host else host
        database_url = options.database_url
        if database_url is None:
            postgresql = PostgreSQL(self._supervisor, durable=options.durable)
            database_url = (await postgresql.start()).url
        connection = Connection(
            supervisor=os.getpid(),
            supervisor_created=psutil.Process().create_time(),
            address=f"http://{shown}:{port}/",
            concurrency=options.concurrency,
            database_url=database_url,
            broker_url=options.broker_url or self._home.broker_url,
            api_keys=dict(options.api_keys or self._home.api_keys()),
        )
        write_private(self._home.path / "connection.json", json.dumps(asdict(connection)))
        return connection

    def _api_command(self, connection: Connection, descriptor: int) -> Command:
        # The listening socket is ours, so a taken port is told here and at once, port 0 is known without a race,
        # and requests that come while the API still starts wait in the socket's queue.
        serve = (*SERVE_API, "--fd", str(descriptor), "--timeout-graceful-shutdown", str(_API_DRAIN))
        return Command(
            name="the API",
            argv=(sys.executable, "-m", *serve),
            log=self._home.logs / "api.log",
            env=connection.environment(self._home.path),
            stopping=_API_STOPPING,
            pass_fds=(descriptor,),
            cwd=self._home.path,  # python -m looks for modules there first: nobody else can write to it
        )


async def run_service(
    home: Home,
    options: Options,
    use: Callable[[Connection], Awaitable[T]],
    on_worker_death: Callable[[WorkerDeath], None] | None = None,
    check: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Start the service on a home, run ``use`` on it, stop everything, and return what ``use`` returned.

    Args:
        home: Locked meanwhile. What a killed predecessor left there is ended first.
        options: What the user chose.
        use: Gets the connection once the service is ready; cancelled when something ends the service.
        on_worker_death: See `LocalService.start`; without it, the worker's end ends the service.
        check: Awaited before anything is started; what it raises is raised.

    Raises:
        LocalError: What kept the service from starting or running; StopRequestedError after a signal.
            Everything that was started has been stopped.
    """
    with home.locked():
        try:
            async with Supervisor(home) as supervisor:
                service = LocalService(supervisor, options)

                async def body() -> T:
                    if check is not None:
                        await check()
                    try:
                        return await use(await service.start(on_worker_death))
                    finally:
                        service.close()

                return await supervisor.run(body)
        finally:
            (home.path / "connection.json").unlink(missing_ok=True)


def worker_command(home: Home, connection: Connection, concurrency: int | None = None) -> Command:
    """Return how a worker is started, by the supervisor or by hand."""
    return Command(
        name="the worker",
        argv=(sys.executable, "-m", *worker_arguments("threads", concurrency or connection.concurrency)),
        log=home.logs / "worker.log",
        # The supervisor has a grace of its own.
        env={**connection.environment(home.path), **TELL_STACKS, "WORKFLOW_WORKER_GRACE": "0"},
        stopping=_WORKER_STOPPING,
        cwd=home.path,
    )


def become_local_worker(home: Home, concurrency: int | None = None) -> None:
    """Replace this process by a worker for the service that runs on ``home``; returns never.

    Raises:
        HomeError: No service runs there.
        LocalError: The worker program could not be started.
    """
    connection = Connection.of(home.path)
    command = worker_command(home, connection, concurrency)
    # Pid and start time stay the same, so the supervisor finds this worker when it stops.
    ProcessRecord.of(command.name, os.getpid(), command.argv, command.stopping).save(home)
    os.chdir(command.cwd)
    try:
        os.execve(command.argv[0], command.argv, dict(command.env))  # noqa: S606
    except OSError as exc:
        raise LocalError(f"the worker could not be started: {exc}; tried {command.argv[0]}") from exc


def rotate_logs(home: Home) -> None:
    """Begin new logs, and keep those of the start before."""
    for log in home.logs.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise LocalError(f"the address {host!r} cannot be used: {exc}; choose another with --host") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        advice = (
            "it is no address of this machine; choose another with --host"
            if exc.errno == errno.EADDRNOTAVAIL
            else f"{exc.strerror}; choose another with --port (0 takes a free one)"
        )
        raise LocalError(f"cannot listen on {host} port {port}: {advice}") from exc
    return listener


async def _wait_ready(connection: Connection, api: Child) -> None:
    answer = "it gave no answer"
    # No proxy of the environment stands between this machine and itself.
    async with httpx.AsyncClient(base_url=connection.address, trust_env=False, timeout=_READY_BOUND) as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_BOUND):
                while True:
                    with suppress(httpx.TransportError):
                        response = await client.get("/health/ready")
                        if response.status_code == httpx.codes.OK:
                            return
                        answer = f"it answered {response.status_code} {_detail(response)}".rstrip()
                    await asyncio.sleep(_LOOK)
    raise NotReadyError(f"{api} was not ready after {_READY_BOUND:.0f} s: {answer}", api.command.log)


def _detail(response: httpx.Response) -> str:
    with suppress(ValueError):
        problem: Any = response.json()  # Any: JSON of whoever listens there
        if isinstance(problem, dict):
            return str(problem.get("detail") or problem.get("title") or "")
    return ""
