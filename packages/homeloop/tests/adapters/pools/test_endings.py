"""How tasks are ended from outside, one at a time, while their worker goes on."""

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

pytestmark = pytest.mark.timeout(120)
WAIT = 30.0  # seconds for a result
DEAF = "solo takes neither messages nor commands while a task runs"


def test_soft_limit_handled(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Soft limit, handled at the await."""
    assert worker.tasks.limited.apply_async((key,), soft_time_limit=1).get(timeout=WAIT) == "half of it"
    assert "cleaned" in worker.read(key)


def test_soft_limit(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Soft limit, not handled: clean-up runs, the task fails with it."""
    with pytest.raises(SoftTimeLimitExceeded):
        worker.tasks.held.apply_async((key,), soft_time_limit=1).get(timeout=WAIT)
    assert "cleaned" in worker.read(key)


def test_hard_limit(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Hard limit: clean-up runs, the process goes on."""
    with pytest.raises(TimeLimitExceeded):
        worker.tasks.held.apply_async((key,), time_limit=1).get(timeout=WAIT)
    holding, cleaned = worker.wait_for(key, "cleaned").splitlines()
    assert holding.split()[1] == cleaned.split()[1]
    pids = {worker.tasks.where.delay().get(timeout=WAIT)[0] for _ in range(20)}
    assert int(cleaned.split()[1]) in pids or worker.pool == "prefork"


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_hard_limit_swallowed(worker, key: str, how: str) -> None:  # type: ignore[no-untyped-def]
    """Hard limit: the task fails with it whatever the coroutine makes of its cancellation."""
    with pytest.raises(TimeLimitExceeded):
        worker.tasks.swallows.apply_async((key, how), time_limit=1).get(timeout=WAIT)
    assert "cleaned" in worker.read(key)


@pytest.mark.whole_table
def test_soft_limit_handled_until_the_hard_one(worker, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Soft and hard limit: what handles the soft one has until the hard one."""
    if (worker.pool, worker.broker) == ("solo", "rabbitmq"):
        cannot("solo answers no heartbeat while a task runs: RabbitMQ ends the connection and delivers it again")
        return
    limits = {"soft_time_limit": 1, "time_limit": 20}
    longer_than_grace = worker.tasks.outlasts_soft_limit.apply_async((key, 6), **limits)
    assert longer_than_grace.get(timeout=WAIT) == "half of it"
    limits = {"soft_time_limit": 1, "time_limit": 2}
    with pytest.raises(TimeLimitExceeded):
        worker.tasks.outlasts_soft_limit.apply_async((key, 600), **limits).get(timeout=WAIT)
    assert worker.tasks.add.delay(1, 1).get(timeout=WAIT) == 2


@pytest.mark.whole_table
def test_hard_limit_and_autoretry(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Hard limit: never autoretried."""
    with pytest.raises(TimeLimitExceeded):
        worker.tasks.held_autoretried.apply_async((key,), time_limit=1).get(timeout=WAIT)
    assert worker.read(key).count("holding") == 1


def test_revoked_before_it_is_received(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Revoke of a task that is still with the broker."""
    assert "ok" in worker.command("revoke", key)
    result = worker.tasks.counted.apply_async((key,), task_id=key)
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=WAIT)
    assert worker.read(key) == ""


def test_revoked_while_it_waits_for_a_place(worker, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Revoke of a task that waits for a place in the pool."""
    if worker.pool == "solo":
        cannot(f"{DEAF}, so none waits in the worker")
        return
    gate = f"{key}-gate"
    running = [worker.tasks.finishes.delay(f"{key}-running", gate) for _ in range(worker.size)]
    worker.wait_for(f"{key}-running", "holding", worker.size)
    queued = worker.tasks.counted.delay(key)
    worker.wait_until(lambda: queued.id in {each["id"] for each in worker.inspect("reserved")}, "the queued task")
    assert "ok" in worker.command("revoke", queued.id)
    worker.open_gate(gate)
    assert [each.get(timeout=WAIT) for each in running] == ["done"] * worker.size
    with pytest.raises(TaskRevokedError, match="revoked"):
        queued.get(timeout=WAIT)
    assert worker.read(key) == ""


def test_terminate(worker, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Revoke with `terminate` of a running task: clean-up runs."""
    if worker.pool == "solo":
        cannot(DEAF)
        running = worker.tasks.finishes.delay(key, f"{key}-gate")
        worker.wait_for(key, "holding")
        assert worker.control.ping(destination=[worker.hostname], timeout=1, limit=1) == []
        worker.open_gate(f"{key}-gate")
        assert running.get(timeout=WAIT) == "done"
        return
    result = worker.tasks.held.delay(key)
    worker.wait_for(key, "holding")
    assert "ok" in worker.command("revoke", result.id, terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(timeout=WAIT)
    worker.wait_for(key, "cleaned")
    assert worker.tasks.add.delay(1, 1).get(timeout=WAIT) == 2
    assert result.id not in {each["id"] for each in worker.inspect("active")}
