"""The asyncio pool in real workers: Celery's promises kept, with thousands of tasks in one process."""

import importlib
import signal
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.result import AsyncResult

from homeloop.errors import AdapterError, SelfCancelledError

from .conftest import wait_until

WAIT = 30.0  # seconds for a result
MANY = 1000


@pytest.fixture
def pool(celery_environment: None, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that chooses the pool; the result backend has a variable of its own."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    monkeypatch.setenv("SEED_BACKEND", redis_url)
    monkeypatch.setenv("SEED_FOLDER", str(tmp_path))


@pytest.fixture
def tasks(pool: None, load_app):  # type: ignore[no-untyped-def]
    """The app's module, as the sender sees it."""
    return load_app("asyncio_pool_tasks")


def noted(tmp_path: Path) -> list[str]:
    """Return what tasks have noted."""
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def send(task, numbers, **options) -> list[AsyncResult]:  # type: ignore[no-untyped-def]
    """Send a task many times over one connection."""
    with task.app.connection_for_write() as connection:
        producer = task.app.amqp.Producer(connection)
        return [task.apply_async((number,), producer=producer, **options) for number in numbers]


def running(tasks) -> int:  # type: ignore[no-untyped-def]
    """Return how many tasks the pool runs; 0 if it is not ready to tell."""
    replies = tasks.app.control.inspect(timeout=1, limit=1).stats() or {}
    return sum(int(stats["pool"]["running"]) for stats in replies.values())


@pytest.mark.needs("redis")
def test_two_thousand_tasks_wait_at_the_same_time_in_one_process(tasks, start_worker) -> None:  # type: ignore[no-untyped-def]
    """The one that is asked returns when all are there; they take the pool's few threads and no more."""
    parties = 2000
    with start_worker("asyncio_pool_tasks", "custom", parties):
        send(tasks.meet, [parties] * (parties - 1), ignore_result=True)
        assert tasks.meet.delay(parties).get(timeout=WAIT) < 20


@pytest.mark.needs("redis")
def test_one_place_is_enough_for_one_task_after_the_other(tasks, start_worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The hub acknowledges at once, and so asks for the next message, instead of when it wakes up by itself."""
    (tmp_path / "released").touch()
    with start_worker("asyncio_pool_tasks", "custom", 1):
        assert [result.get(timeout=WAIT) for result in send(tasks.hold, range(300))] == list(range(300))


@pytest.mark.needs("redis")
def test_limits_and_revocation_and_a_warm_shutdown_among_a_thousand(  # type: ignore[no-untyped-def]
    tasks, start_worker, tmp_path: Path
) -> None:
    """Each ends its own task, with clean-up; the thousand that wait meanwhile end as if nothing had been."""
    with start_worker("asyncio_pool_tasks", "custom", MANY + 10, warm=False) as worker:
        held = send(tasks.hold, range(MANY))
        wait_until(lambda: running(tasks) == MANY, "a thousand tasks in flight")

        assert tasks.softly.delay(True).get(timeout=WAIT) == "half of it"
        with pytest.raises(SoftTimeLimitExceeded):
            tasks.softly.delay(False).get(timeout=WAIT)
        with pytest.raises(TimeLimitExceeded):
            tasks.hardly.delay().get(timeout=WAIT)
        revoked = tasks.hold_named.delay("revoked")
        wait_until(lambda: "revoked holds" in noted(tmp_path), "the task begins")
        revoked.revoke(terminate=True)
        with pytest.raises(TaskRevokedError):
            revoked.get(timeout=WAIT)
        wait_until(lambda: "revoked cleaned" in noted(tmp_path), "its clean-up")
        assert noted(tmp_path).count("limited softly") == 2
        assert noted(tmp_path).count("limited hardly") == 1
        wait_until(lambda: running(tasks) == MANY, "the end of the revoked one")

        worker.terminate()
        (tmp_path / "released").touch()
        assert [result.get(timeout=WAIT) for result in held] == list(range(MANY))
        assert worker.wait(WAIT) == 0


@pytest.mark.needs("redis")
def test_a_cold_shutdown_cleans_up_a_thousand_and_gives_them_back(tasks, start_worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Every coroutine is cancelled and cleans up; with acks_late the broker has every message again."""
    with start_worker("asyncio_pool_tasks", "custom", MANY, warm=False) as worker:
        send(tasks.hold_late, range(MANY))
        wait_until(lambda: running(tasks) == MANY, "a thousand tasks in flight")
        worker.send_signal(signal.SIGQUIT)
        worker.wait(WAIT)
    assert noted(tmp_path).count("cleaned") == MANY
    with tasks.app.connection_for_write() as connection:
        queued = connection.default_channel.queue_declare(tasks.app.conf.task_default_queue, passive=True)
    assert queued.message_count == MANY


@pytest.mark.needs("redis")
def test_concurrency_is_a_bound_and_what_waits_can_be_revoked(tasks, start_worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Never more than N at a time, in order; growing and shrinking change N; a revoked one never begins."""
    with start_worker("asyncio_pool_tasks", "custom", 2):
        assert _most_at_a_time(tasks, tmp_path, 2) == 2
        holders = [tasks.hold.delay(0), tasks.hold.delay(1)]
        wait_until(lambda: running(tasks) == 2, "both places are taken")
        never = tasks.hold_named.delay("never")
        never.revoke()
        assert tasks.app.control.pool_grow(1, reply=True, timeout=WAIT, limit=1)
        with pytest.raises(TaskRevokedError):
            never.get(timeout=WAIT)
        assert tasks.add.delay(1, 1).get(timeout=WAIT) == 2
        assert tasks.app.control.pool_shrink(2, reply=True, timeout=WAIT, limit=1)
        (tmp_path / "released").touch()
        assert [holder.get(timeout=WAIT) for holder in holders] == [0, 1]
        assert _most_at_a_time(tasks, tmp_path, 1) == 1
    assert "never holds" not in noted(tmp_path)


def _most_at_a_time(tasks, tmp_path: Path, expected: int) -> int:  # type: ignore[no-untyped-def]
    """Return how many of more tasks than there are places ran at the same time, when all places were taken."""
    (tmp_path / "released").unlink(missing_ok=True)
    results = [tasks.count.delay() for _ in range(expected + 3)]
    wait_until(lambda: running(tasks) == expected, "all places are taken")
    (tmp_path / "released").touch()
    for result in results:
        result.get(timeout=WAIT)
    (tmp_path / "released").unlink()
    return int(tasks.most.delay().get(timeout=WAIT))


@pytest.mark.needs("redis")
def test_a_task_that_blocks_the_loop_is_given_up_at_its_hard_limit(
    tasks, start_worker, tmp_path: Path, capfd
) -> None:  # type: ignore[no-untyped-def]
    """Its failure does not wait for the loop, and the log shows where that is blocked; then the others go on."""
    with start_worker("asyncio_pool_tasks", "custom", 2):
        with pytest.raises(TimeLimitExceeded):
            tasks.block.delay().get(timeout=WAIT)
        log = tmp_path / "asyncio_pool_tasks-custom.log"
        assert "its loop is blocked at" in log.read_text()
        assert "in block" in log.read_text()
        assert tasks.add.delay(1, 2).get(timeout=WAIT) == 3  # on another loop
        (tmp_path / "released").touch()


@pytest.mark.needs("redis")
def test_celery_is_called_around_the_coroutine_in_its_context_and_off_the_loop(  # type: ignore[no-untyped-def]
    tasks, start_worker, tmp_path: Path
) -> None:
    """Handlers and signals come in Celery's order, with the task's request, in one context with the body."""
    with start_worker("asyncio_pool_tasks", "custom", 10):
        assert tasks.observed.delay("ends").get(timeout=WAIT) == "ends by prerun"
        # Celery stores the result first: the next task may begin while the handlers of this one are still to come.
        wait_until(lambda: len(noted(tmp_path)) == 4, "the end of the first task")
        with pytest.raises(LookupError):
            tasks.observed.delay("fails").get(timeout=WAIT)
    ends, fails = "['ends']", "['fails']"
    assert noted(tmp_path) == [
        f"before_start; {ends}",
        f"on_success ends by prerun; {ends}",
        f"after_return SUCCESS; {ends}",
        "postrun sees by the body",
        f"before_start; {fails}",
        f"on_failure LookupError('fails'); {fails}",
        f"after_return FAILURE; {fails}",
        "postrun sees by the body",
    ]


@pytest.mark.needs("redis")
def test_what_a_task_does_to_itself_or_to_the_loop_ends_nobody_else(tasks, start_worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """They fail their task; a closed runtime is a lost worker, and a new one opens."""
    with start_worker("asyncio_pool_tasks", "custom", 10):
        held = tasks.hold.delay(7)
        with pytest.raises(WorkerLostError, match="exitcode 3"):
            tasks.exits.delay().get(timeout=WAIT)
        with pytest.raises(SelfCancelledError):
            tasks.cancels_itself.delay().get(timeout=WAIT)
        with pytest.raises(AdapterError, match=r"forgets_await returned a coroutine that nobody has awaited"):
            tasks.forgets_await.delay().get(timeout=WAIT)
        assert not held.ready()
        tasks.close_runtime.delay().get(timeout=WAIT)
        with pytest.raises(WorkerLostError, match="was closed under the task"):
            held.get(timeout=WAIT)
        assert tasks.add.delay(1, 2).get(timeout=WAIT) == 3


@pytest.mark.needs("redis")
def test_a_retry_that_comes_back_at_once_is_not_overwritten_by_the_attempt_before(  # type: ignore[no-untyped-def]
    tasks, start_worker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery stores by a look and a write; it begins when that is done."""
    monkeypatch.setenv("SEED_BACKEND", f"asyncio_pool_tasks:HesitantBackend+{redis_url}")
    with start_worker("asyncio_pool_tasks", "custom", 10):
        retried = send(tasks.again, range(3))
        assert [result.get(timeout=WAIT) for result in retried] == [0, 1, 2]
        wait_until(lambda: running(tasks) == 0, "the end of all attempts")
        assert {tasks.app.AsyncResult(result.id).state for result in retried} == {"SUCCESS"}  # as stored


@pytest.mark.needs("redis")
def test_tasks_that_cannot_be_split_take_threads(tasks, start_worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Sync tasks, and async ones with a __call__ of their own, which the log names; the coroutine is at home."""
    with start_worker("asyncio_pool_tasks", "custom", 4):
        assert {tasks.sync.delay(i).get(timeout=WAIT)[:19] for i in range(3)} == {"homeloop-pool-sync-"}
        assert tasks.called.delay().get(timeout=WAIT) == "homeloop"
        revoked = tasks.called_to_hold.delay()
        wait_until(lambda: "called holds" in noted(tmp_path), "the task begins")
        revoked.revoke(terminate=True)
        wait_until(lambda: "called cleaned" in noted(tmp_path), "its clean-up")
        with pytest.raises(TaskRevokedError):
            revoked.get(timeout=WAIT)
        log = (tmp_path / "asyncio_pool_tasks-custom.log").read_text()
    assert "called takes a thread for as long as it runs: Called has a __call__ of its own" in log
    assert noted(tmp_path).count("called") == 2


@pytest.mark.needs("redis")
def test_a_transport_without_a_hub_will_do(
    tasks, start_worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """Over the filesystem broker, with a thread of the pool's own for its books."""
    monkeypatch.setenv("SEED_BROKER", "filesystem://")
    tasks = importlib.reload(tasks)
    with start_worker("asyncio_pool_tasks", "custom", 20):
        results = [tasks.meet.delay(20) for _ in range(20)]
        assert max(result.get(timeout=WAIT) for result in results) < 20
        with pytest.raises(SoftTimeLimitExceeded):
            tasks.softly.delay(False).get(timeout=WAIT)
        with pytest.raises(TimeLimitExceeded):
            tasks.hardly.delay().get(timeout=WAIT)


def test_a_worker_with_async_tasks_that_celery_does_not_know_does_not_start(script) -> None:  # type: ignore[no-untyped-def]
    """The error says what to call."""
    ended = script(
        """
        from celery import Celery
        app = Celery("plain", broker="memory://")

        @app.task
        async def plain() -> None: ...

        app.Worker(pool="homeloop.adapters.celery.pool:TaskPool", concurrency=1).start()
        """
    )
    assert "call homeloop.adapters.celery.install(app) right after Celery()" in ended.stderr
