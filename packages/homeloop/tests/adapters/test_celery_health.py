"""The health of workers: `celery inspect homeloop`, and what Prometheus is told of a prefork pool."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from homeloop import ask_process, local_processes
from homeloop.adapters.celery import remote

WAIT = 30.0  # seconds for a result
APPS = Path(__file__).parent / "apps"
COMMAND = (sys.executable, "-m", "celery", "--app", "health_tasks")
pytestmark = [pytest.mark.needs("redis"), pytest.mark.timeout(120)]

LoadApp = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="homeloop-") as folder:  # short, as names of sockets must be
        monkeypatch.setenv("HOMELOOP_RUN_DIR", folder)
        yield


@pytest.fixture
def ask_worker(wait_until: Callable[..., None]) -> Callable[[Any], dict[str, Any]]:
    """Return what an app's only worker says, by pid."""

    def ask(app: Any) -> dict[str, Any]:
        answers: list[dict[str, dict[str, Any]]] = []

        def is_answered() -> bool:  # a green worker does its first tasks before it listens to the remote control
            answers.extend(app.control.broadcast("homeloop", reply=True, timeout=2, limit=1))
            return bool(answers)

        wait_until(is_answered, "an answer")
        (told,) = answers[0].values()
        return told

    return ask


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent", "eventlet", "custom"])
def test_f4_remote_control_tells_the_health_of_each_process(
    celery_environment: None, load_app: LoadApp, start_worker: Any, ask_worker: Any, pool: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On every pool: the processes that run tasks, not the parent of a prefork pool."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    tasks = load_app("health_tasks")
    monkeypatch.setenv("WATCHED", "yes")
    with start_worker("health_tasks", pool, 1):
        pid = str(tasks.process_id.delay().get(timeout=WAIT))
        told = ask_worker(tasks.app)
    assert list(told) == [pid]
    assert told[pid]["monitored"]
    assert told[pid]["status"] in ("healthy", "warning")  # a busy machine is slow
    assert told[pid]["runtimes"][0]["statistics"]["finished"] >= 1


def test_f3_a_stopped_child_is_told_by_its_parent(
    celery_environment: None,
    load_app: LoadApp,
    start_worker: Any,
    ask_worker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that got SIGSTOP cannot tell it; remote control, ``homeloop ps`` and the page can."""
    tasks = load_app("health_tasks")
    monkeypatch.setenv("WATCHED", "yes")
    with start_worker("health_tasks", "prefork", 1):
        pid = tasks.process_id.delay().get(timeout=WAIT)
        os.kill(pid, signal.SIGSTOP)
        try:
            told = ask_worker(tasks.app)[str(pid)]
            (process,) = local_processes(timeout=WAIT, pids=[pid])
        finally:
            os.kill(pid, signal.SIGCONT)
    assert told["status"] == process.state == "stopped"
    assert f"kill -CONT {pid}" in told["recommendations"][0]


def test_one_that_is_silent_does_not_make_its_siblings_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are asked at the same time: the one that keeps the lock takes nobody else's time to answer."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"{os.environ['HOMELOOP_RUN_DIR']}/{os.getppid()}.sock")  # it never answers
        listener.listen()
        child = stack.enter_context(
            subprocess.Popen(
                (sys.executable, "-c", WATCHED), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(child.kill)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        monkeypatch.setattr(remote, "_BUDGET", 3.0)
        pool = SimpleNamespace(info={"processes": [os.getppid(), child.pid, 1]})
        told = remote.homeloop(SimpleNamespace(consumer=SimpleNamespace(pool=pool)))
    assert [told[str(pid)]["status"] for pid in (os.getppid(), 1)] == ["silent", "unknown"]
    assert told[str(child.pid)]["pid"] == child.pid


WATCHED = """
import sys, time, homeloop
monitor = homeloop.default_monitor()
tell = monitor._tell_owner
monitor._tell_owner = lambda: time.sleep(0.2) or tell()  # as on a busy machine
monitor.start()
homeloop.default_runtime().start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "custom"])
def test_f3_the_page_is_told_of_jobs(
    celery_environment: None, load_app: LoadApp, start_worker: Any, wait_until: Callable[..., None], pool: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Celery's id and task, the loop and its thread, the node of the graph that the job is in."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    tasks = load_app("health_tasks")
    monkeypatch.setenv("WATCHED", "yes")
    found: dict[str, Any] = {}

    def waits_in_the_node() -> bool:
        # Its task has the label before its first step, and while it looks whether to end.
        told = job.info
        if isinstance(told, dict) and "pid" in told:
            found.update(ask_process(told["pid"], "page", timeout=WAIT))
        return any(frame.endswith("in extract") for each in found.get("jobs", ()) for frame in each["waiting_at"])

    with start_worker("health_tasks", pool, 1):
        job = tasks.walk_graph.delay()
        wait_until(waits_in_the_node, "the graph's node", bound=2 * WAIT, describe=lambda: found.get("jobs"))
        (told,) = found["jobs"]
        loops = {loop["home"]["loop"]: loop for loop in found["report"]["loops"]}
        (tmp_path / "log").touch()
        job.get(timeout=WAIT)
    assert told["labels"] == {
        "celery id": job.id,
        "celery task": "health_tasks.walk_graph",
        "graph node": "extract",
        "thread_id": "case-7",
    }
    assert loops[told["loop"]]["home"]["thread"] == "homeloop"


def test_f4_celerys_own_command_line_knows_it(
    celery_environment: None, load_app: LoadApp, start_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``celery inspect homeloop``; a process without a monitor says so."""
    tasks = load_app("health_tasks")
    with start_worker("health_tasks", "prefork", 1):
        pid = tasks.process_id.delay().get(timeout=WAIT)
        asked = subprocess.run(
            [
                sys.executable,
                "-m",
                "celery",
                "--app",
                "health_tasks",
                "inspect",
                "--json",
                "--timeout=20",
                "homeloop",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONPATH": str(APPS)},
        )
    assert f"process {pid} has no health monitor that can be asked" in asked.stdout
    assert '"unknown"' in asked.stdout


def test_f4_prometheus_is_told_of_the_children_of_a_prefork_pool(
    celery_environment: None, load_app: LoadApp, start_worker: Any, tmp_path: Path, wait_until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each child writes what it measures into the folder that they share."""
    tasks = load_app("health_tasks")
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    monkeypatch.setenv("WATCHED", "yes")

    def loops() -> set[str]:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))
        return {
            sample.labels["pid"]
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "asyncio_eventloop_tasks_pending" and sample.labels["owner"] == "runtime"
        }

    with start_worker("health_tasks", "prefork", 2) as worker:
        pid = tasks.process_id.delay().get(timeout=WAIT)
        wait_until(lambda: len(loops()) == 2, "both children's figures", describe=loops)
        assert str(pid) in loops()
        assert str(worker.pid) not in loops()
