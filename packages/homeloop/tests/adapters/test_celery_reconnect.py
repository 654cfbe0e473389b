"""A worker goes on when its connection to RabbitMQ was lost while tasks ran."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import celery
import pytest

WAIT = 30.0  # seconds for a result
SIZE = 4  # tasks at a time


@pytest.mark.needs("redis", "rabbitmq", "postgres")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_c7_the_prefetch_count_is_restored_by_who_reads_the_socket(  # type: ignore[no-untyped-def]
    celery_environment: None, start_worker, wait_until: Callable[..., None], rabbitmq_url: str, pool: str,
    load_app: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Celery does so where a task ends, beside the worker's own reader: then neither gets whole frames."""
    monkeypatch.setenv("RECONNECT_BROKER", rabbitmq_url)
    tasks = load_app("reconnect_tasks")
    notes = tmp_path / "log"

    def count(text: str) -> int:
        return notes.read_text().count(text) if notes.exists() else 0

    try:
        with start_worker("reconnect_tasks", pool, SIZE):
            held = [tasks.held.delay() for _ in range(SIZE - 1)]
            wait_until(lambda: count("begun") == SIZE - 1, "the tasks to begin")
            tasks.cut.delay()
            wait_until(lambda: count("connected") == 2, "the worker to connect anew")
            tasks.flag.touch()
            results = [tasks.add.delay(number, 1) for number in range(3 * SIZE)]
            assert [each.get(timeout=WAIT) for each in results] == list(range(1, 3 * SIZE + 1))
            for each in held:
                each.get(timeout=WAIT)
            if pool == "threads" or celery.VERSION >= (5, 7):  # gevent's maximum was what ran at the moment
                wait_until(lambda: count(f"prefetch {SIZE} ") >= 3, "the count to be as it was")
    finally:
        with tasks.app.connection_for_write() as connection, connection.channel() as channel:
            channel.queue_delete(tasks.app.conf.task_default_queue)
    asked = {line.partition(" by ")[2] for line in notes.read_text().splitlines() if line.startswith("prefetch")}
    assert asked == {"MainThread"}
    assert count("prefetch 0 ") == 0  # no bound
