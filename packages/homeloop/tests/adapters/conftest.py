"""Real Celery workers, in processes of their own."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from celery import _state

APPS = Path(__file__).parent / "apps"
STOP_BOUND = 30.0  # seconds for a warm shutdown

StartWorker = Callable[..., "AbstractContextManager[subprocess.Popen[bytes]]"]


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


@pytest.fixture
def start_worker(celery_environment: None, tmp_path: Path) -> StartWorker:
    """Start ``celery worker`` for an app; afterwards stop it warmly, or kill it if it is not worth more."""

    @contextmanager
    def start(app: str, pool: str, concurrency: int, *, warm: bool = True) -> "Iterator[subprocess.Popen[bytes]]":
        output = tmp_path / f"{app}-{pool}.log"
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
        celery = (sys.executable, "-m", "celery", "--app", app, "worker", "--pool", pool)
        with output.open("wb") as log:
            worker = subprocess.Popen(
                [*celery, "--concurrency", str(concurrency), *quiet],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(APPS)},
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
