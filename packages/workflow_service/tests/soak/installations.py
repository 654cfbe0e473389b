"""The two ways to run the service, and what is done to them while they are used."""

import json
import os
import random
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

import httpx
import psutil
from production import COMMAND, Process, Production, production, wait_until

from workflow_service.local.home import Home
from workflow_service.local.postgresql import kept_cluster
from workflow_service.local.records import read_records

_GRACE = {"WORKFLOW_WORKER_GRACE": "2", "WORKFLOW_RUN_LEASE": "10", "WORKFLOW_REAP_INTERVAL": "1"}
_STEADY = 20.0  # seconds between two disturbances, about


class Installation(Protocol):
    """A service that runs."""

    disturbances: Counter[str]
    database_url: str

    def client(self) -> httpx.AsyncClient:
        """Return a client with a user's key, for where the service is now."""
        ...

    def processes(self) -> Mapping[str, list[int]]:
        """Return the pids to sample, by what is to be seen as one line."""
        ...

    def disturb(self, share: float) -> None:
        """Do the next unkind thing if its time has come; called once a second, with the share of the time past."""
        ...


class Servers:
    """PostgreSQL and Redis, two API processes, a worker that stays and one that comes and goes."""

    def __init__(self, service: Production, environment: Mapping[str, str]) -> None:
        self._service = service
        self._environment = dict(environment)
        self._random = random.Random(1)
        self._due = 0
        self.disturbances: Counter[str] = Counter()
        self.database_url = service.environment["DATABASE_URL"]
        self._api = service.start_api("--workers", "2", **self._environment)
        self._steady = service.start_worker("--pool", "asyncio", "--concurrency", "16", **self._environment)
        self._other = self._start_other()

    @classmethod
    @contextmanager
    def running(
        cls, folder: Path, database_url: str, broker_url: str, environment: Mapping[str, str]
    ) -> Iterator[Self]:
        """Start all, and stop all."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with production(folder, database_url, broker_url, port) as service:
            yield cls(service, {**environment, **_GRACE})
            for process in reversed(service.started):
                if process.popen.poll() is None:
                    assert process.stop() == 0, process.text

    def client(self) -> httpx.AsyncClient:
        """Return a client of the API."""
        api = self._service.api
        return httpx.AsyncClient(base_url=api.base_url, headers=api.headers, trust_env=False, timeout=30)

    def processes(self) -> Mapping[str, list[int]]:
        """API: the process of the two that is never killed. Worker: the one that stays."""
        return {"API": self._api_children()[:1], "worker": [self._steady.popen.pid]}

    def disturb(self, share: float) -> None:
        """About every 20 s: stop or kill the other worker and start the next, or kill the younger API process."""
        self._due += 1
        if self._due < _STEADY or share > 0.9:  # the last tenth is quiet: what was taken must have been given back
            return
        self._due = 0
        what = self._random.choice(["worker stopped", "worker killed", "API process killed"])
        self.disturbances[what] += 1
        if what == "API process killed":
            os.kill(self._api_children()[-1], signal.SIGKILL)  # uvicorn starts another
            return
        if what == "worker stopped":
            assert self._other.stop() == 0, self._other.text
        else:
            self._other.kill()
        self._other = self._start_other()

    def _start_other(self) -> Process:
        pool = self._random.choice(["threads", "prefork"])
        return self._service.start_worker("--pool", pool, "--concurrency", "4", **self._environment)

    def _api_children(self) -> list[int]:
        children = psutil.Process(self._api.popen.pid).children()
        served = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
        return [each.pid for each in sorted(served, key=psutil.Process.create_time)]


class Embedded:
    """``workflow-service up``: restarted as a whole, its worker killed and replaced."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._home = folder / "home"
        self._environment = {**os.environ, **environment, **_GRACE}
        self._due = 0
        self._turn = 0
        self._number = 0
        self._by_hand: list[subprocess.Popen[bytes]] = []
        self.disturbances: Counter[str] = Counter()
        self._up = self._start()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, environment: Mapping[str, str]) -> Iterator[Self]:
        """Start it, and remove all of it."""
        service = cls(folder, environment)
        with ExitStack() as stack:
            stack.callback(service._remove)
            yield service
            service._stop()

    @property
    def database_url(self) -> str:
        """The embedded database."""
        return str(self._connection()["database_url"])

    def client(self) -> httpx.AsyncClient:
        """Return a client of the API."""
        facts = self._connection()
        headers = {"Authorization": f"Bearer {next(iter(facts['api_keys'].values()))}"}
        return httpx.AsyncClient(base_url=facts["address"], headers=headers, trust_env=False, timeout=30)

    def processes(self) -> Mapping[str, list[int]]:
        """API and worker of the moment; PostgreSQL besides, with its children."""
        pids = {record.name: record.pid for record in read_records(Home(self._home))}
        names = {"the API": "API", "the worker": "worker"}
        return {shown: [pids[name]] for name, shown in names.items() if name in pids}

    def disturb(self, share: float) -> None:
        """By turns: restart all, kill the worker and start another by hand. The first and last third are quiet."""
        self._due += 1
        if self._due < _STEADY or not 1 / 3 < share < 2 / 3:
            return
        self._due = 0
        self._turn += 1
        if self._turn % 2:
            self.disturbances["worker killed"] += 1
            for record in read_records(Home(self._home)):
                if record.name == "the worker":
                    os.kill(record.pid, signal.SIGKILL)
            with (self._folder / f"by-hand-{self._turn}.log").open("wb") as log:
                self._by_hand.append(
                    subprocess.Popen(
                        [*COMMAND, "worker", "--home", str(self._home)],
                        env=self._environment,
                        stdout=log,
                        stderr=log,
                    )
                )
        else:
            self.disturbances["service restarted"] += 1
            self._stop()
            self._up = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._number += 1
        with (self._folder / f"up-{self._number}.log").open("wb") as log:
            up = subprocess.Popen(
                [*COMMAND, "up", "--home", str(self._home), "--port", "0"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def is_ready() -> bool:
            assert up.poll() is None, f"up ended: see {self._folder}"
            with suppress(OSError, ValueError, httpx.TransportError):
                return httpx.get(f"{self._connection()['address']}health/ready", trust_env=False).is_success
            return False

        wait_until(is_ready)
        return up

    def _stop(self) -> None:
        self._up.terminate()
        assert self._up.wait(60) == 0, f"up did not end well: see {self._folder}"
        for worker in self._by_hand:
            # Killed by the service after its patience with those it did not start; nobody else sees how it ends.
            assert worker.wait(60) in (0, -signal.SIGKILL), f"a worker ended by itself: see {self._folder}"
        self._by_hand.clear()
        for log in (self._home / "logs").glob("*.log"):
            log.replace(self._folder / f"{log.stem}-{self._number}.log")  # the next start keeps one of before only

    def _remove(self) -> None:
        if self._up.poll() is None:
            self._up.terminate()  # what it started would go on for a while if it were killed
            try:
                self._up.wait(60)
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()
        if self._home.exists() and (cluster := kept_cluster(Home(self._home))) is not None:
            cluster.remove()

    def _connection(self) -> dict[str, object]:
        return dict(json.loads((self._home / "connection.json").read_text()))
