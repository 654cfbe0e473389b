"""A real Celery worker on the folder: late acknowledgement, kill -9, warm shutdown, remote control."""

from collections import Counter
from pathlib import Path

import pytest
from celery import Celery
from kombu.pools import reset

from .conftest import Program, Start, kill, leased, stop, wait_until, waiting

POOLS = ["threads", "prefork"]


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """The folder where tasks leave marks."""
    path = tmp_path / "marks"
    path.mkdir()
    return path


@pytest.fixture
def app(url: str, folder: Path):  # type: ignore[no-untyped-def]
    """A client of the broker, as the API is one."""
    app = Celery("client", broker=url, set_as_current=False)
    app.conf.task_default_queue = "jobs.test"
    yield app
    reset()  # kombu keeps producers per address
    app.close()


def worker(start: Start, pool: str, url: str, marks: Path, *options: str) -> Program:
    """Start a worker."""
    command = ("-m", "celery", "--app=jobs", "--quiet", "worker", f"--pool={pool}", "--concurrency=2", *options)
    return start(*command, BROKER_URL=url, MARKS=str(marks))


def count(marks: Path, pattern: str) -> int:
    """Return how many marks there are."""
    return sum(1 for _ in marks.glob(pattern))


@pytest.mark.parametrize("pool", POOLS)
def test_no_task_is_lost_by_kill_9(
    start: Start, app: Celery, url: str, folder: Path, marks: Path, pool: str
) -> None:
    """100 tasks, the worker killed in the middle and started again: every task runs to its end; none waits."""
    for number in range(100):
        app.send_task("jobs.work", (number,))
    first = worker(start, pool, url, marks)
    wait_until(lambda: count(marks, "*.done.*") >= 20, "20 tasks")
    kill(first)
    begun = {path.name.split(".")[0] for path in marks.glob("*.started.*")}
    done = {path.name.split(".")[0] for path in marks.glob("*.done.*")}
    assert len(done) < 100

    second = worker(start, pool, url, marks)
    wait_until(lambda: not waiting_tasks(folder) and not leased(folder), "an empty queue")
    assert stop(second) == 0

    ends = Counter(path.name.split(".")[0] for path in marks.glob("*.done.*"))
    assert set(ends) == {str(number) for number in range(100)}
    again = {path.name.split(".")[0] for path in marks.glob("*.started.again.*")}
    assert begun - done <= again
    assert {number for number, times in ends.items() if times > 1} <= again


def waiting_tasks(folder: Path) -> list[Path]:
    """Return the waiting task messages; what workers say to each other does not count."""
    return list((folder / "queues" / "jobs%2Etest").iterdir())


@pytest.mark.parametrize("pool", POOLS)
def test_warm_shutdown_gives_back_what_has_not_begun(
    start: Start, app: Celery, url: str, folder: Path, marks: Path, pool: str
) -> None:
    """SIGTERM: the running task ends and is acknowledged; prefetched ones wait again for the next worker."""
    app.send_task("jobs.wait_for_gate")
    program = worker(start, pool, url, marks)
    wait_until(lambda: count(marks, "waiting.*") == 1, "the task to run")
    for number in range(5):
        app.send_task("jobs.work", (number,), countdown=3600)
    wait_until(lambda: len(leased_tasks(folder)) == 6, "five tasks to be prefetched")
    program.terminate()
    (marks / "gate").touch()
    assert stop(program) == 0

    assert count(marks, "passed.*") == 1
    assert len(waiting_tasks(folder)) == 5
    assert leased(folder) == []


def leased_tasks(folder: Path) -> list[Path]:
    """Return the leased task messages."""
    return list((folder / "leased").glob("*/jobs%2Etest/*"))


def test_two_workers_share_one_queue(start: Start, app: Celery, url: str, folder: Path, marks: Path) -> None:
    """Two workers on one folder run each task once, and both answer to remote control."""
    both = [worker(start, "threads", url, marks, f"--hostname=w{number}@test") for number in (1, 2)]
    answers: list[str] = []

    def answered() -> bool:
        answers[:] = sorted(name for answer in app.control.ping(timeout=0.5) for name in answer)
        return len(answers) == 2

    wait_until(answered, "two workers")
    assert answers == ["w1@test", "w2@test"]
    for number in range(60):
        app.send_task("jobs.work", (number,))
    wait_until(lambda: count(marks, "*.done.*") >= 60, "60 tasks")
    assert [stop(program) for program in both] == [0, 0]
    ends = Counter(path.name.split(".")[0] for path in marks.glob("*.done.*"))
    assert ends == Counter(str(number) for number in range(60))
    assert waiting_tasks(folder) == []
    assert waiting(folder) == []
