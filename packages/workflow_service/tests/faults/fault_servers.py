"""PostgreSQL, Redis and RabbitMQ of one's own: on free ports, in a folder of one's own, made to be killed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import psycopg

from workflow_service.gateways import broker_folder
from workflow_service.gateways.filesystem_broker import broker_url
from workflow_service.local import binaries
from workflow_service.local.os_user import OsUser, database_user

BOUND = 90.0  # seconds for a server to be there, or gone
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the command on the PATH changes user and folders


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(is_so: object, what: str) -> None:
    """Ask the callable ``is_so`` until it says yes; fail after the bound."""
    assert callable(is_so)
    deadline = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < deadline, f"waited {BOUND:.0f} s for {what}"
        time.sleep(0.05)


class Process:
    """A program in a session of its own, that can be killed and started again with the same arguments."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._argv, self._env, self._folder = argv, env, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.user: OsUser | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = time.monotonic() + BOUND
        while True:
            self._spawn()
            while not self.answers():
                assert time.monotonic() < deadline, f"{self.name} does not answer: {self.log.read_text()[-2000:]}"
                if not self.is_alive:  # what was killed may still hold its port, or its memory
                    break
                time.sleep(0.05)
            else:
                return
            time.sleep(0.2)

    def _spawn(self) -> None:
        user = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []} if self.user else {}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                env=dict(self._env),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,  # type: ignore[call-overload]
            )

    def answers(self) -> bool:
        """Whether it does its work."""
        return self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, to it and whatever it started in its session."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end; kill what does not."""
        if self._process is None:
            return
        self._end(signal.SIGTERM)
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            assert number is not signal.SIGKILL, f"{self.name} outlived SIGKILL"


class PostgreSQL(Process):
    """The server on the PATH, else the one of the wheel; as root it runs as the service's system user."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        user = database_user()
        place = folder / "postgresql"
        place.mkdir()
        if user is not None:
            os.chown(place, user.uid, user.gid)
        programs = _postgresql_programs()
        data = place / "data"
        who = {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd=place,
            timeout=BOUND,
            **who,  # type: ignore[call-overload]
        )
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        super().__init__(
            "postgresql", [str(programs / "postgres"), "-D", str(data), *arguments], {"LC_ALL": "C"}, folder
        )
        self.user = user

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it fast: whoever is connected is cut off."""
        if self._process is not None and self.is_alive:
            self._process.send_signal(signal.SIGINT)
        super().stop()


def _postgresql_programs() -> Path:
    found = shutil.which("initdb") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None
    )
    return binaries.wheel_programs() / "bin" if found is None else Path(found).resolve().parent


class Redis(Process):
    """A Redis that keeps nothing: killed, it has lost every message."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        program = shutil.which("redis-server")
        assert program is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__("redis", [program, *options], os.environ, folder)

    def answers(self) -> bool:
        """Whether it listens."""
        return _listens(self.port)


class RabbitMQ(Process):
    """A RabbitMQ that keeps its queues on disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        place = folder / "rabbitmq"
        place.mkdir()
        (place / "enabled_plugins").write_text("[].")
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(place),  # where Erlang keeps its cookie
            "RABBITMQ_NODENAME": f"faults{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(place / "data"),
            "RABBITMQ_LOG_BASE": str(place / "log"),
            "RABBITMQ_PID_FILE": str(place / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(place / "none"),
            "RABBITMQ_CONF_ENV_FILE": str(place / "none-env"),
        }
        super().__init__("rabbitmq", [str(_RABBITMQ)], env, folder)

    def answers(self) -> bool:
        """Whether it listens."""
        return _listens(self.port)


class FileBroker:
    """The broker in a folder: no process, so what can be lost at once is every message that waits."""

    name = "folder"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "broker"
        self.url = broker_url(self._folder)

    def start(self) -> None:
        """Nothing to do: whoever uses it makes it."""

    def kill(self) -> None:
        """Remove every message that waits."""
        for file in self._folder.glob("queues/*/*"):
            if broker_folder._MESSAGE.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Nothing to do."""


BROKERS = {"filesystem": FileBroker, "redis": Redis, "rabbitmq": RabbitMQ}


def absence(broker: str) -> str | None:
    """Return why a broker of one's own cannot be started here; None when it can."""
    if broker == "redis" and shutil.which("redis-server") is None:
        return "no redis-server on the PATH"
    if broker == "rabbitmq" and not _RABBITMQ.exists():
        return f"no {_RABBITMQ}"
    return None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_ready(address: str) -> bool:
    """Whether the API at this address says that it is ready."""
    try:
        with urlopen(f"{address}/health/ready", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
