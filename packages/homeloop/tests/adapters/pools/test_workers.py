"""What concerns a whole worker: how much it takes on, how it ends, what it leaves. Each test has its own."""

import re
import signal
from collections import Counter

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

pytestmark = pytest.mark.timeout(120)
WAIT = 30.0  # seconds for a result
MANY = 100
BLOCKING_LINE = re.compile(r'pool_tasks\.py(?::|", line )\d+,? in blocks')  # as a place, and as a traceback has it


def test_overlap(start, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """As many tasks overlap as the concurrency says: 100 in one process meet at one barrier (prefork: 2)."""
    if start.pool == "solo":
        cannot("it runs one task at a time")
        with start.worker() as worker:
            sent = [worker.tasks.finishes.delay(key, f"{key}-gate") for _ in range(2)]
            worker.wait_for(key, "holding")
            worker.open_gate(f"{key}-gate")
            assert [each.get(timeout=WAIT) for each in sent] == ["done", "done"]
            assert [line.split()[0] for line in worker.read(key).splitlines()] == ["holding", "finished"] * 2
        return
    if start.pool == "prefork":
        with start.worker() as worker:
            pids = {each.get(timeout=WAIT) for each in [worker.tasks.meets.delay(key, 2) for _ in range(2)]}
            assert len(pids) == 2
        return
    with start.worker(size=MANY) as worker:
        sent = [worker.tasks.meets_on_loop.delay(MANY) for _ in range(MANY)]
        assert {each.get(timeout=WAIT) for each in sent} == {worker.process.pid}


def test_warm_shutdown(start, key: str) -> None:  # type: ignore[no-untyped-def]
    """Warm shutdown: running tasks finish, resources are closed, nothing is left."""
    with start.worker() as worker:
        running = worker.tasks.finishes.delay(key, f"{key}-gate")
        worker.wait_for(key, "holding")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_until(lambda: "Warm shutdown" in worker.output(), "the shutdown")
        worker.open_gate(f"{key}-gate")
        assert worker.process.wait(WAIT) == 0
        worker.assert_nothing_left()
        assert running.get(timeout=WAIT) == "done"


@pytest.mark.whole_table
def test_cold_shutdown(start, key: str) -> None:  # type: ignore[no-untyped-def]
    """Cold shutdown: coroutines are cancelled, clean-up runs, `acks_late` tasks are delivered again."""
    with start.worker() as worker:
        late = worker.tasks.held_acks_late.delay(key)
        worker.wait_for(key, "holding")
        worker.end(signal.SIGQUIT)
        assert "cleaned" in worker.read(key)
    with start.worker() as worker:
        assert late.get(timeout=WAIT) == "second run"


def test_killed_worker(start, key: str) -> None:  # type: ignore[no-untyped-def]
    """`acks_late` and kill -9 of the whole worker: the task runs again."""
    with start.worker() as worker:
        late = worker.tasks.held_acks_late.delay(key)
        worker.wait_for(key, "holding")
        worker.kill()
        worker.forgive_open_resources()
    transport = {}
    if start.broker == "redis":
        # Redis knows nothing of workers: a message is given back when its time is over, an hour by default.
        # A worker looks for those every 100 s by default, here every second.
        transport = {"visibility_timeout": 1, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    with start.worker(transport=transport) as worker:
        assert late.get(timeout=WAIT) == "second run"


@pytest.mark.whole_table
def test_recycling(start, cannot) -> None:  # type: ignore[no-untyped-def]
    """`worker_max_tasks_per_child`: each child has a runtime of its own and closes it."""
    with start.worker("--max-tasks-per-child=2", size=1) as worker:
        pids = [worker.tasks.where.delay().get(timeout=WAIT)[0] for _ in range(6)]
        if start.pool == "prefork":
            assert set(Counter(pids).values()) == {2}
            worker.wait_until(
                lambda: all(f"closed {pid}\n" in worker.read("resources") for pid in pids), "the ends"
            )
        else:
            cannot("the pool has no child processes; Celery ignores the setting")
            assert set(pids) == {worker.process.pid}


@pytest.mark.whole_table
def test_autoscale(start, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Autoscale: from one place to the three that the tasks need to meet."""
    if start.pool in ("threads", "solo"):
        cannot("the pool cannot grow: Celery's class has no `grow`")
        with start.worker() as worker:
            answer = worker.control.pool_grow(1, destination=[worker.hostname], reply=True, timeout=WAIT, limit=1)
            assert "error" in answer[0][worker.hostname]
        return
    with start.worker("--autoscale=3,1") as worker:
        sent = [worker.tasks.meets.delay(key, 3) for _ in range(3)]
        assert len([each.get(timeout=WAIT) for each in sent]) == 3


@pytest.mark.whole_table
def test_prefetch(start, key: str) -> None:  # type: ignore[no-untyped-def]
    """Prefetch: with `acks_late` and a multiplier of 1 a worker takes no more messages than it works on."""
    with start.worker() as worker:
        sent = [worker.tasks.gated.delay(key, f"{key}-gate") for _ in range(worker.size + 3)]
        worker.wait_for(key, "holding", worker.size)
        worker.wait_until(lambda: worker.messages_waiting() == 3, "three messages left")
        if start.pool != "solo":  # which does not answer while it works
            assert len(worker.inspect("active")) == worker.size
            assert worker.messages_waiting() == 3
        worker.open_gate(f"{key}-gate")
        assert [each.get(timeout=WAIT) for each in sent] == [None] * len(sent)


@pytest.mark.whole_table
def test_limits_of_the_worker(start, key: str) -> None:  # type: ignore[no-untyped-def]
    """Limits given to the worker: `--soft-time-limit`, `--time-limit`."""
    with start.worker("--soft-time-limit=1", "--time-limit=20") as worker, pytest.raises(SoftTimeLimitExceeded):
        worker.tasks.held.delay(key).get(timeout=WAIT)
    with start.worker("--time-limit=1") as worker:
        with pytest.raises(TimeLimitExceeded):
            worker.tasks.held.delay(f"{key}-hard").get(timeout=WAIT)
        assert "cleaned" in worker.read(f"{key}-hard")


@pytest.mark.whole_table
def test_blocked_loop(start, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Hard limit of a coroutine that blocks its loop: the process is killed and replaced."""
    with start.worker() as worker:
        seconds = 600 if start.pool == "prefork" else 4
        with pytest.raises(TimeLimitExceeded):
            worker.tasks.blocks.apply_async((key, seconds), time_limit=1).get(timeout=WAIT)
        if start.pool != "prefork":
            cannot("all tasks share the process; the task fails, and the log names the line that blocks")
            worker.wait_until(lambda: BLOCKING_LINE.search(worker.output()), "the line that blocks")
        assert worker.tasks.add.delay(1, 1).get(timeout=WAIT) == 2
        if start.pool == "prefork":
            worker.forgive_open_resources()  # it was killed


def test_blocked_loop_and_both_limits(start, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Soft and hard limit of a coroutine that blocks its loop: its process is killed, no autoretry."""
    if start.pool != "prefork":
        cannot("all tasks share the process; see the hard limit alone")
        return
    with start.worker(size=1) as worker:
        limits = {"soft_time_limit": 1, "time_limit": 2}
        with pytest.raises(TimeLimitExceeded):
            worker.tasks.blocks_autoretried.apply_async((key,), **limits).get(timeout=WAIT)
        pids = {worker.tasks.where.delay().get(timeout=WAIT)[0]}
        [line] = worker.read(key).splitlines()
        assert int(line.split()[1]) not in pids
        worker.forgive_open_resources()


def test_blocked_loop_and_soft_limit(start, key: str, cannot) -> None:  # type: ignore[no-untyped-def]
    """Soft limit alone of a coroutine that blocks its loop: the task fails, the next ones get a fresh loop."""
    if start.pool != "prefork":
        cannot("all tasks share the loop, and nothing interrupts what blocks it; give such tasks a hard limit")
        return
    with start.worker(size=1) as worker:
        with pytest.raises(SoftTimeLimitExceeded):
            worker.tasks.blocks.apply_async((key, 600), soft_time_limit=1).get(timeout=WAIT)
        pid, *_ = worker.tasks.where.delay().get(timeout=WAIT)
        assert worker.read(key).split() == ["holding", str(pid)]
        stuck = next(line for line in worker.output().splitlines() if "RuntimeStuck(" in line)
        assert "in blocks'" in stuck
        worker.forgive_open_resources()
