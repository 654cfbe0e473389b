"""
Celery workers for the table of pools and features: one for each pool and broker, which most tests share.

``make test`` runs a quick selection, on Redis; ``CELERY_POOLS=all`` everything. What each test shows, on which
pool and broker, is recorded in the report, from which ``table.py`` writes the table.
"""

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state

APPS = Path(__file__).parents[1] / "apps"
WHOLE = os.environ.get("CELERY_POOLS") == "all"
WAIT = 45.0 if WHOLE else 20.0  # seconds for a result, a line in a file, the end of a worker
POOLS = {  # and how many tasks at a time
    "prefork": 2,
    "threads": 8,
    "solo": 1,
    "gevent": 8,
    "eventlet": 10,
    "asyncio": 8,  # ours; Celery says "custom"
}
BROKERS = ("redis", "rabbitmq", "filesystem")
LOOP_ERRORS = (  # what asyncio, Celery and libraries of greenlets say when something was left behind
    "Event loop is closed",
    "Task was destroyed but it is pending",
    "Task exception was never retrieved",
    "was never awaited",
    "different loop",
    "Unrecoverable error",
    "BlockingSwitchOutError",
    "Second simultaneous read",
    "ConcurrentObjectUseError",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole_table: not in the quick selection that `make test` runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if WHOLE:
        return
    slow = [item for item in items if item.get_closest_marker("whole_table")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test is a row of the table: it runs on each pool, with each broker."""
    kind = next(name for name in ("worker", "start") if name in metafunc.fixturenames)
    cells = [
        pytest.param(
            (pool, broker),
            id=f"{pool}-{broker}",
            marks=pytest.mark.needs(*sorted({"redis", broker} - {"filesystem"})),
        )
        for broker in (BROKERS if WHOLE else BROKERS[:1])
        for pool in POOLS
    ]
    metafunc.parametrize(kind, cells, indirect=True, scope="package" if kind == "worker" else "function")


class PoolWorker:
    """A Celery worker in a process of its own, and the tasks it knows, as their sender sees them."""

    def __init__(
        self, place: "Place", process: "subprocess.Popen[bytes]", hostname: str, log: Path, size: int
    ) -> None:
        self.pool, self.broker, self.tasks, self.folder = place.pool, place.broker, place.tasks, place.folder
        self.process = process
        self.hostname = hostname
        self.size = size  # tasks at a time
        self._log = log

    @property
    def control(self) -> Any:
        return self.tasks.app.control

    def command(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a remote control command to this worker; return its answer."""
        [answer] = getattr(self.control, name)(
            *args, destination=[self.hostname], reply=True, timeout=WAIT, limit=1, **options
        )
        return answer[self.hostname]

    def result_of(self, task_id: str) -> Any:
        """
        Return the result of a task that another one has sent.

        The sender's result has an `AsyncResult` for it, too. Celery before 5.7 tells only the first one of a task
        (celery#4925): the second one gets what is stored when it asks, else it waits in vain.
        """
        result = self.tasks.app.AsyncResult(task_id)
        self.wait_until(result.ready, f"the result of {task_id}")
        return result.get(timeout=WAIT)

    def inspect(self, what: str) -> list[dict[str, Any]]:
        """Return what the worker has active, reserved or scheduled."""
        asked = self.control.inspect(destination=[self.hostname], timeout=WAIT, limit=1)
        return list(getattr(asked, what)()[self.hostname])

    def wait_for(self, name: str, text: str, count: int = 1) -> str:
        """Wait until the file ``name`` has ``text`` so many times; return it."""
        self.wait_until(lambda: self.read(name).count(text) >= count, f"{count} {text!r} in {name}")
        return self.read(name)

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited in vain for {what}; the worker said at last:\n{self.output()[-3000:]}"
            )
            time.sleep(0.02)

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def output(self) -> str:
        return self._log.read_text()

    def open_gate(self, name: str) -> None:
        (self.folder / name).touch()

    def messages_waiting(self) -> int:
        """Return how many messages the broker has for this worker's queue."""
        with self.tasks.app.connection_for_read() as connection, connection.channel() as channel:
            return int(channel.queue_declare(self.tasks.app.conf.task_default_queue, passive=True).message_count)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end; nothing may be left of it. Return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(WAIT)
        self.assert_nothing_left()
        return code

    def assert_nothing_left(self) -> None:
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        output = self.output()
        assert not [error for error in LOOP_ERRORS if error in output], output[-10000:]
        lines = self.read("resources").split("\n")
        opened, closed = (
            {line.split()[1] for line in lines if line.startswith(what)} for what in ("opened", "closed")
        )
        assert opened, "no process opened its resource"
        assert opened == closed

    def forgive_open_resources(self) -> None:
        """Count as closed what processes had open that were killed."""
        opened = [line for line in self.read("resources").splitlines() if line.startswith("opened")]
        with (self.folder / "resources").open("a") as resources:
            resources.writelines(f"{line.replace('opened', 'closed', 1)}\n" for line in opened)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Place:
    """A pool, a broker, a queue and a folder of its own; the tasks as imported with these."""

    def __init__(
        self, pool: str, broker: str, folder: Path, urls: dict[str, str], close_client: Callable[[Celery], None]
    ) -> None:
        self.pool, self.broker, self.folder = pool, broker, folder
        self._close_client = close_client
        self.name = f"homeloop-{uuid.uuid4().hex[:12]}"
        self._urls = urls
        self._environment = self._make_environment({})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
            patch.syspath_prepend(str(APPS))
            for name, value in self._environment.items():
                patch.setenv(name, value)
            sys.modules.pop("pool_tasks", None)
            self.tasks: Any = importlib.import_module("pool_tasks")
            self.tasks.app.finalize()

    def _make_environment(self, options: dict[str, Any]) -> dict[str, str]:
        settings = {
            "broker_transport_options": options,
            "result_backend_transport_options": {"global_keyprefix": f"{self.name}:"},
        }
        if (self.pool, self.broker) == ("solo", "rabbitmq"):
            # A solo worker sends its acknowledgements when its hub wakes up: for a timer, else after 10 s.
            settings["broker_heartbeat"] = 1
        return {
            "CELERY_CUSTOM_WORKER_POOL": "homeloop.adapters.celery.pool:TaskPool",
            "POOL_FOLDER": str(self.folder),
            "POOL_BROKER": self._urls.get(self.broker) or f"safefs://{self.folder / 'broker'}",
            "POOL_BACKEND": self._urls["redis"],
            "POOL_SETTINGS": json.dumps(settings),
            "POOL_QUEUE": self.name,
            "PYTHONPATH": os.pathsep.join((str(APPS), os.environ.get("PYTHONPATH", ""))),
        }

    @contextmanager
    def worker(
        self, *options: str, size: int | None = None, transport: dict[str, Any] | None = None
    ) -> Iterator[PoolWorker]:
        """Start a worker that is ready; in the end, if it still runs, stop it warmly."""
        hostname = f"{uuid.uuid4().hex[:8]}@here"
        log = self.folder / f"{hostname}.log"
        size = size or POOLS[self.pool]
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
        pool = "custom" if self.pool == "asyncio" else self.pool
        command = [sys.executable, "-m", "celery", "--app", "pool_tasks", "worker", f"--pool={pool}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"--concurrency={size}", "--hostname", hostname, *quiet, *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, **self._make_environment(transport or {})},
            )
        worker = PoolWorker(self, process, hostname, log, size)
        try:
            worker.wait_until(
                lambda: f"{hostname} ready." in worker.output() or process.poll() is not None, "a start"
            )
            assert process.poll() is None, worker.output()
            yield worker
            if process.poll() is None:
                assert worker.end() == 0
        finally:
            worker.kill()

    def close(self) -> None:
        """Leave nothing on the servers."""
        app = self.tasks.app
        with app.connection_for_write() as connection, connection.channel() as channel:
            channel.queue_delete(self.name)
        client = app.backend.client
        for key in client.scan_iter(f"{self.name}:*", count=1000):
            client.delete(key)
        self._close_client(app)


@pytest.fixture(scope="session")
def new_place(
    redis_url: str,
    rabbitmq_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    close_client: Callable[[Celery], None],
) -> Callable[..., Place]:
    urls = {"redis": redis_url, "rabbitmq": rabbitmq_url}
    return lambda pool, broker: Place(
        pool, broker, tmp_path_factory.mktemp(f"{pool}-{broker}"), urls, close_client
    )


@pytest.fixture(scope="package")  # not for the session: its last worker would be a child of all later tests
def worker(request: pytest.FixtureRequest, new_place: Callable[..., Place]) -> Iterator[PoolWorker]:
    """One worker of a pool and a broker, for all tests that leave it as it was."""
    place = new_place(*request.param)
    try:
        with place.worker("--task-events") as started:
            yield started
    finally:
        place.close()


@pytest.fixture
def start(request: pytest.FixtureRequest, new_place: Callable[..., Place]) -> Iterator[Place]:
    """A place for workers of the test's own: ``with start.worker(...) as worker``."""
    place = new_place(*request.param)
    yield place
    place.close()


@pytest.fixture
def key() -> str:
    """A name for a file of the test's own."""
    return uuid.uuid4().hex


@pytest.fixture(autouse=True)
def recorded(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Say in the report which cell of the table this is: the docstring's first line names the row."""
    kind = "worker" if "worker" in request.fixturenames else "start"
    pool, broker = request.node.callspec.params[kind]
    record_property("feature", inspect.getdoc(request.function).splitlines()[0].rstrip("."))
    record_property("pool", pool)
    record_property("broker", broker)


@pytest.fixture
def cannot(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say in the report that Celery itself cannot do it here, and why; the test goes on to show it."""
    return lambda reason: record_property("cannot", reason)
