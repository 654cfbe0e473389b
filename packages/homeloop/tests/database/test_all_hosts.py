"""Tasks in every host at once: each loop has its pool, no other; nothing fails and nothing is left."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("postgres", "redis"), pytest.mark.timeout(180)]

APP = Path(__file__).parent / "apps" / "own_documents.py"
PER_WORKER = 300  # tasks
BOUND = 60.0  # seconds for all of them, and for a warm shutdown
WORKERS = {"prefork": 2, "threads": 8}  # pool: concurrency
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
WORKER_LOOPS = 2 + 1  # a loop in each child of prefork, and one in the process of threads
SESSIONS = """
SELECT sessions, sessions_abandoned + sessions_fatal + sessions_killed AS unclean
FROM pg_stat_database WHERE datname = $1
"""


@contextmanager
def worker(pool: str, concurrency: int, log: Path) -> Iterator[None]:
    """A Celery worker that tells every warning; stopped warmly."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    command = (sys.executable, "-W", "default", "-m", "celery", "--app", APP.stem, "worker", *quiet)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--pool", pool, "--concurrency", str(concurrency), "--hostname", f"{pool}@homeloop"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
        process.terminate()
        assert process.wait(BOUND) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(log.read_text())


def test_a_thousand_tasks_in_every_host(
    database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1,000 tasks over prefork, threads, asyncio.run loops and two live runtimes, at once.

    Half-way every loop waits for the others with its pool open, and is counted. No error, as many
    connections opened as pools times their size, each closed by its own side, none left, no
    ResourceWarning.
    """
    monkeypatch.setenv("DATABASE_URL", database.dsn)
    monkeypatch.setenv("BROKER", redis_url)
    monkeypatch.setenv("QUEUE", f"homeloop-test-{uuid.uuid4()}")
    monkeypatch.setenv("PYTHONPATH", f"{APP.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    spec = spec_from_file_location(APP.stem, APP)
    assert spec is not None
    assert spec.loader is not None
    hosts = module_from_spec(spec)
    spec.loader.exec_module(hosts)
    before = database.server(SESSIONS, database.role)[0]

    deadline = time.monotonic() + 2 * BOUND

    def half() -> list[str]:
        users = [hosts.USERS[number % 2] for number in range(len(WORKERS) * PER_WORKER // 2)]
        results = [hosts.look.delay(user) for user in users]
        return [result.get(timeout=deadline - time.monotonic()) for result in results]

    logs = {pool: tmp_path / f"{pool}.log" for pool in WORKERS}
    with (
        worker("prefork", WORKERS["prefork"], logs["prefork"]),
        worker("threads", WORKERS["threads"], logs["threads"]),
        subprocess.Popen([sys.executable, "-W", "default", APP], **PIPES) as program,
    ):
        while len(hosts.app.control.ping(limit=len(WORKERS), timeout=1.0)) < len(WORKERS):
            assert time.monotonic() < deadline
        answers = half()
        assert program.stdout is not None
        assert program.stdout.readline() == "half way\n"
        # Now all of them live at the same time.
        live = WORKER_LOOPS + hosts.RUNTIMES + hosts.THREADS
        assert database.connections() == live * hosts.POOL_SIZE
        answers += half()
        output, errors = program.communicate("go on\n", timeout=BOUND)
    hosts.app.close()

    assert answers == [hosts.USERS[number % 2] for number in range(len(WORKERS) * PER_WORKER)]
    in_loops = hosts.THREADS * hosts.LOOPS * hosts.TASKS
    in_runtimes = hosts.RUNTIMES * hosts.CALLS
    assert (errors, output.strip(), program.returncode) == ("", str(in_runtimes + in_loops), 0)
    assert len(answers) + in_runtimes + in_loops == 1000
    assert [
        line for log in logs.values() for line in log.read_text().splitlines() if "ResourceWarning" in line
    ] == []
    assert database.connections() == 0
    after = database.server(SESSIONS, database.role)[0]
    loops = WORKER_LOOPS + hosts.RUNTIMES + hosts.THREADS * hosts.LOOPS
    assert after["sessions"] - before["sessions"] == loops * hosts.POOL_SIZE
    assert after["unclean"] == before["unclean"]
