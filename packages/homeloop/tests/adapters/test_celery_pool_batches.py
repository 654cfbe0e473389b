"""Messages and acknowledgements by the batch: nothing is lost, whatever ends, and kombu's order is kept."""

import importlib
import json
import time
from pathlib import Path
from typing import Any

import kombu
import pytest
from kombu import transport
from redis import Redis

from homeloop.adapters.celery.pool import _redis_transport as ours
from homeloop.adapters.celery.pool._transports import receive_many

from .conftest import wait_until

WAIT = 30.0  # seconds
MANY = 1500


@pytest.fixture
def tasks(  # type: ignore[no-untyped-def]
    celery_environment: None, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The app's module, as the sender sees it, with the pool and a broker whose keys are the test's."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    monkeypatch.setenv("SEED_BACKEND", redis_url)
    monkeypatch.setenv("SEED_FOLDER", str(tmp_path))
    options = {"global_keyprefix": prefix, "visibility_timeout": 1, "client_name": prefix}
    monkeypatch.setenv("SEED_TRANSPORT", json.dumps(options))
    import asyncio_pool_tasks

    module = importlib.reload(asyncio_pool_tasks)
    yield module
    module.app.close()


def send_many(task: Any) -> dict[str, int]:
    """Send a task many times; return the numbers by task id."""
    with task.app.connection_for_write() as connection:
        producer = task.app.amqp.Producer(connection)
        return {task.apply_async((number,), producer=producer).id: number for number in range(MANY)}


def with_broker(tasks: Any, redis: "Redis[str]", prefix: str) -> set[str]:
    """Return the ids of the tasks that the broker has, waiting or unacknowledged."""
    waiting = redis.lrange(f"{prefix}{tasks.app.conf.task_default_queue}", 0, -1)
    unacked = [json.loads(each)[0] for each in redis.hvals(f"{prefix}unacked")]
    return {message["headers"]["id"] for message in [*map(json.loads, waiting), *unacked]}


def stored(tasks: Any, ids: list[str]) -> set[str]:
    """Return the ids of the tasks that have their result."""
    backend = tasks.app.backend
    found = zip(ids, backend.mget([backend.get_key_for_task(each) for each in ids]), strict=True)
    return {each for each, meta in found if meta and json.loads(meta)["status"] == "SUCCESS"}


def begun(tmp_path: Path) -> list[int]:
    log = tmp_path / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines]


@pytest.mark.needs("redis")
@pytest.mark.parametrize("late", [True, False], ids=["acks late", "acks early"])
def test_what_a_killed_worker_had_is_done_or_still_with_the_broker(  # type: ignore[no-untyped-def]
    tasks, start_worker, redis: "Redis[str]", prefix: str, tmp_path: Path, late: bool
) -> None:
    """After kill -9 at any moment: with acks_late all of it; else, as on every pool, but for what ran."""
    places = 100
    # By each kill. One more: kombu pops the first message of a batch before it notes it.
    lost_at_most = 1 if late else places + 1
    sent = send_many(tasks.begins_late if late else tasks.begins)
    lost: set[str] = set()
    for _ in range(3):
        before = len(begun(tmp_path))
        with start_worker("asyncio_pool_tasks", "custom", places, warm=False) as worker:
            wait_until(lambda: len(begun(tmp_path)) > before + MANY // 10, "some tasks")  # noqa: B023
            worker.kill()
            worker.wait(WAIT)
        missing = set(sent) - with_broker(tasks, redis, prefix) - stored(tasks, list(sent)) - lost
        assert len(missing) <= lost_at_most
        lost |= missing
    wait_until(lambda: not redis.zcount(f"{prefix}unacked_index", time.time() - 1.2, "+inf"), "redelivery is due")
    with start_worker("asyncio_pool_tasks", "custom", places):
        wait_until(lambda: stored(tasks, list(sent)) == set(sent) - lost, "all results")
        wait_until(lambda: not with_broker(tasks, redis, prefix), "all acknowledgements")


@pytest.mark.needs("redis")
def test_a_worker_that_loses_its_broker_comes_to_its_end_with_all_tasks(  # type: ignore[no-untyped-def]
    tasks, start_worker, redis: "Redis[str]", prefix: str, tmp_path: Path
) -> None:
    """Its connections are killed again and again; what was acknowledged and could not be sent is sent later."""
    sent = send_many(tasks.begins)
    with start_worker("asyncio_pool_tasks", "custom", 100):
        for part in (1, 2, 3):
            wait_until(lambda: len(begun(tmp_path)) > part * MANY // 5, "some tasks")  # noqa: B023
            for client in redis.client_list():
                if client["name"] == prefix:
                    redis.client_kill_filter(_id=client["id"])
        wait_until(
            lambda: stored(tasks, list(sent)) == set(sent),
            "all results",
            describe=lambda: {
                each: (each in with_broker(tasks, redis, prefix), sent[each] in begun(tmp_path))
                for each in set(sent) - stored(tasks, list(sent))
            },  # id: whether the broker has it, whether it has begun
        )
        wait_until(lambda: not with_broker(tasks, redis, prefix), "all acknowledgements")


def test_an_unknown_kombu_keeps_its_transport_and_the_log_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So does another transport that somebody has put there; a known one is replaced."""
    aliases = {"redis": "kombu.transport.redis:Transport", "rediss": "mine:Transport"}
    monkeypatch.setattr(transport, "TRANSPORT_ALIASES", aliases)
    with monkeypatch.context() as patch:
        patch.setattr(kombu, "__version__", "9.9.1")
        receive_many()
    assert aliases == {"redis": "kombu.transport.redis:Transport", "rediss": "mine:Transport"}
    assert "kombu 9.9.1 is not known" in caplog.text
    assert "homeloop_pool_batches = False" in caplog.text
    receive_many()
    assert aliases == {"redis": f"{ours.__name__}:Transport", "rediss": "mine:Transport"}
