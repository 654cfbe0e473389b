"""Real Celery workers, in processes of their own."""

import importlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest
from celery import Celery, _state
from kombu import pools
from redis import Redis

APPS = Path(__file__).parent / "apps"
STOP_BOUND = 30.0  # seconds for a warm shutdown

CloseClient = Callable[[Celery], None]
StartWorker = Callable[..., "AbstractContextManager[subprocess.Popen[bytes]]"]


def wait_until(
    condition: Callable[[], object], what: str, bound: float = 30.0, describe: Callable[[], object] = str
) -> None:
    """Wait, for so many seconds at the most, for something that happens elsewhere."""
    deadline = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}; {describe()}"
        time.sleep(0.005)


@pytest.fixture(name="wait_until")
def wait_until_for_folders() -> Callable[..., None]:
    """`wait_until`, for the tests in folders below, which import nothing from here."""
    return wait_until


@pytest.fixture(autouse=True)
def own_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery keeps every task for every app that is made later: not for those of the next test."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))


@pytest.fixture
def celery_environment(redis_url: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the apps read when they are imported, here and in the workers; a queue of the test's own."""
    monkeypatch.setenv("SEED_BROKER", redis_url)
    monkeypatch.setenv("SEED_QUEUE", f"homeloop-test-{uuid.uuid4()}")
    monkeypatch.setenv("SEED_LOG", str(tmp_path / "log"))
    application = f"homeloop-{uuid.uuid4().hex[:12]}"
    # By name, so that opening a connection goes through getaddrinfo as it did in the documents.
    dsn = postgres_url.replace("127.0.0.1", "localhost")
    separator = "&" if "?" in dsn else "?"
    monkeypatch.setenv("SEED_DSN", f"{dsn}{separator}application_name={application}")
    monkeypatch.setenv("SEED_APPLICATION", application)
    monkeypatch.syspath_prepend(str(APPS))


@pytest.fixture(scope="session")
def close_client() -> CloseClient:
    """Close what a process that sends an app's tasks has open on Redis: all that ``app.close()`` leaves open."""

    def close(app: Celery) -> None:
        app.backend.result_consumer.stop()
        app.backend.result_consumer._pubsub = None  # or a result that is collected later opens it again
        app.backend.client.connection_pool.disconnect()
        app.close()
        pools.reset()

    return close


@pytest.fixture
def load_app(close_client: CloseClient) -> Iterator[Callable[[str], ModuleType]]:
    """
    Return a function that loads an app's module as the sender sees it, with what the environment says by then.

    What was sent and not taken, and what is open, goes with the test.
    """
    loaded: list[ModuleType] = []

    def load(name: str) -> ModuleType:
        loaded.append(importlib.reload(importlib.import_module(name)))
        return loaded[-1]

    yield load
    for module in loaded:
        module.app.control.purge()
        close_client(module.app)


@pytest.fixture
def redis(redis_url: str) -> Iterator["Redis[str]"]:
    client: Redis[str] = Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def prefix(redis: "Redis[str]") -> Iterator[str]:
    """What all keys of a test begin with."""
    made = f"homeloop-{uuid.uuid4().hex[:12]}:"
    yield made
    for key in redis.scan_iter(f"{made}*", count=1000):
        redis.delete(key)


@pytest.fixture
def start_worker(celery_environment: None, tmp_path: Path) -> StartWorker:
    """Start ``celery worker`` for an app; afterwards stop it warmly, or kill it if it is not worth more."""

    @contextmanager
    def start(
        app: str, pool: str | None, concurrency: int | None, *, warm: bool = True
    ) -> "Iterator[subprocess.Popen[bytes]]":
        output = tmp_path / f"{app}-{pool}.log"
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
        celery = (sys.executable, "-m", "celery", "--app", app, "worker")
        chosen = {"--pool": pool, "--concurrency": concurrency}  # None leaves it to the app's settings
        options = [f"{name}={value}" for name, value in chosen.items() if value is not None]
        with output.open("wb") as log:
            worker = subprocess.Popen(
                [*celery, *options, *quiet],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(APPS), os.environ.get("PYTHONPATH", "")))},
                start_new_session=True,
            )
        try:
            yield worker
            if warm:
                worker.terminate()
                assert worker.wait(STOP_BOUND) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            print(output.read_text())

    return start
