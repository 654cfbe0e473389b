"""What Celery promises of tasks, kept for ``async def`` ones on the prefork, threads and solo pools."""

import importlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from celery import Celery, chord, group

from homeloop.adapters.celery import AsyncTask, install
from homeloop.errors import AdapterError

WAIT = 30.0  # seconds for a result
POOLS = [
    pytest.param("prefork", 2, id="prefork"),
    pytest.param("threads", 8, id="threads"),
    pytest.param("solo", 1, id="solo"),
]


@pytest.fixture
def features(celery_environment: None):  # type: ignore[no-untyped-def]
    """The app's module, as the sender sees it."""
    import feature_tasks

    module = importlib.reload(feature_tasks)
    yield module
    module.app.control.purge()
    module.app.close()


def _wait_for(log: Path, line: str) -> str:
    """Wait until a task has noted a line, at most the bound; return the whole log."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        text = log.read_text() if log.exists() else ""
        if line in text:
            return text
        time.sleep(0.02)
    raise AssertionError(f"no task noted {line!r}")


@pytest.mark.needs("redis")
@pytest.mark.parametrize(("pool", "concurrency"), POOLS)
def test_tasks_keep_their_meaning(features, start_worker, pool: str, concurrency: int) -> None:
    """Results, errors, own request and current task, retry, autoretry, chords, sync tasks beside async ones."""
    with start_worker("feature_tasks", pool, concurrency):
        assert features.add.delay(1, 2).get(timeout=WAIT) == 3
        assert features.add_sync.delay(1, 2).get(timeout=WAIT) == 3
        with pytest.raises(LookupError, match="async boom"):
            features.fail.delay().get(timeout=WAIT)
        asked = [features.who.delay(0.05) for _ in range(24)]
        for result in asked:
            assert result.get(timeout=WAIT) == [result.id, result.id, result.id, "homeloop"]
        assert features.retried.delay().get(timeout=WAIT) == 2
        assert features.autoretried.delay().get(timeout=WAIT) == 2
        joined = chord(group(features.add.s(i, i) for i in range(5)))(features.total.s())
        assert joined.get(timeout=WAIT) == 20


@pytest.mark.needs("redis")
def test_a_background_task_never_sees_another_tasks_request(features, start_worker, tmp_path: Path) -> None:
    """What outlives its Celery task sees none."""
    with start_worker("feature_tasks", "threads", 1):
        features.leaves_a_task_behind.delay().get(timeout=WAIT)
        features.next_one.delay().get(timeout=WAIT)
    assert "background sees None" in (tmp_path / "log").read_text()


@pytest.mark.needs("redis")
@pytest.mark.parametrize(("pool", "concurrency"), POOLS)
def test_a_stopping_worker_closes_its_runtime_and_what_lives_on_it(
    features, start_worker, tmp_path: Path, pool: str, concurrency: int
) -> None:
    """One runtime and one resource per process that ran a task; each is closed in its own process."""
    with start_worker("feature_tasks", pool, concurrency):
        pids = {features.use_resource.delay().get(timeout=WAIT) for _ in range(10)}
    lines = (tmp_path / "log").read_text().split("\n")
    for pid in pids:
        assert lines.count(f"{pid} resource opened") == 1
        assert lines.count(f"{pid} resource closed") == 1


@pytest.mark.needs("redis")
def test_a_soft_time_limit_cancels_the_coroutine_and_its_clean_up_runs(
    features, start_worker, tmp_path: Path
) -> None:
    """On prefork, where Celery has limits: the task fails with SoftTimeLimitExceeded, cleaned up."""
    from celery.exceptions import SoftTimeLimitExceeded

    with start_worker("feature_tasks", "prefork", 1):
        with pytest.raises(SoftTimeLimitExceeded):
            features.limited.delay().get(timeout=WAIT)
        assert "cleaned after the limit" in (tmp_path / "log").read_text()
        assert features.finishes_early.delay().get(timeout=WAIT) == "half of it"
        assert features.add.delay(1, 1).get(timeout=WAIT) == 2


@pytest.mark.needs("redis")
def test_a_killed_prefork_child_is_replaced_and_the_next_one_works(features, start_worker, tmp_path: Path) -> None:
    """kill -9 of a child in the middle of a coroutine: its successor has a runtime of its own."""
    with start_worker("feature_tasks", "prefork", 1):
        features.hold.delay()
        holding = next(line for line in _wait_for(tmp_path / "log", "holding").splitlines() if "holding" in line)
        os.kill(int(holding.split()[0]), signal.SIGKILL)
        assert features.add.delay(2, 2).get(timeout=WAIT) == 4


def test_eager_mode_apply_and_direct_calls_work() -> None:
    """No worker, no broker: the task runs where it is called, and sees its own request."""
    app = Celery("eager", broker="memory://", backend="cache+memory://")
    install(app)

    @app.task(bind=True)
    async def describe(self, x: int) -> tuple[str | None, int]:  # type: ignore[no-untyped-def]
        return self.request.id, x

    assert describe(1) == (None, 1)
    result = describe.apply((2,), task_id="here")
    assert result.get() == ("here", 2)
    app.conf.task_always_eager = True
    assert describe.delay(3).get()[1] == 3


def test_the_base_class_alone_is_enough() -> None:
    """``base=AsyncTask`` on one task, without install()."""
    app = Celery("base", broker="memory://")

    @app.task(base=AsyncTask)
    async def double(x: int) -> int:
        return 2 * x

    assert double(2) == 4


def test_arguments_are_still_checked_when_a_task_is_sent() -> None:
    """Celery's typing check sees the coroutine function's own signature."""
    app = Celery("typing", broker="memory://")
    install(app)

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        double.delay()


def test_installing_twice_is_harmless_and_too_late_is_refused() -> None:
    """The error says where the call belongs."""
    app = Celery("late", broker="memory://")
    install(app)
    install(app)

    @app.task
    async def one() -> int:
        return 1

    assert one() == 1
    with pytest.raises(AdapterError, match="comes too late, tasks exist"):
        install(app)


def test_fast_locals_are_refused(script) -> None:  # type: ignore[no-untyped-def]
    """A Celery whose stacks cannot follow a coroutine is named, before anything is changed."""
    ended: subprocess.CompletedProcess[str] = script(
        """
from celery import Celery
from homeloop.adapters.celery import install
from homeloop.errors import AdapterError
try: install(Celery("fast", broker="memory://"))
except AdapterError as error: print(error)
""",
        USE_FAST_LOCALS="1",
    )
    assert "USE_FAST_LOCALS is set" in ended.stdout
