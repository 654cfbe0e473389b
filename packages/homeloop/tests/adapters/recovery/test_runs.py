"""Tasks that survive their workers: kill -9 of real ones, and everything else that may become of a run."""

import gc
import os
import signal
from contextlib import ExitStack
from itertools import pairwise

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded

from homeloop import User, as_user, default_runtime, run
from homeloop.errors import TaskLostError

WAIT = 60.0  # seconds for anything; tells a hang from an answer
pytestmark = [
    pytest.mark.needs("redis", "postgres"),
    pytest.mark.timeout(180),
]
STEPS, MIDDLE = 10, 5
SIZES = {"prefork": 4, "threads": 16, "custom": 30}
TASKS = 50  # all at the same time: Redis would return what a dead worker has not begun after minutes only


def test_c3_fifty_tasks_survive_their_workers(tasks, client, start_worker) -> None:
    """A child and whole workers of three pools are killed in the middle of 50 tasks: all finish, from their last
    checkpoint, none runs twice at the same time, each for its own user."""
    at_work = "SELECT pid, count(DISTINCT task_id) FROM notes WHERE step = $1 GROUP BY pid"
    with ExitStack() as stack:
        workers = [
            stack.enter_context(start_worker("recovery_tasks", *each, warm=False)) for each in SIZES.items()
        ]
        client.wait_until(lambda: client.ready() == 3, "three workers")
        sent = []
        for number in range(TASKS):
            with as_user(f"user-{number % 7}"):
                sent.append(tasks.walk.delay(STEPS, MIDDLE, "middle"))
        client.wait_until(
            lambda: sum(row["count"] for row in client.ask(at_work, MIDDLE)) == TASKS, "the middle of all"
        )
        pids = {row["pid"] for row in client.ask(at_work, MIDDLE)}
        assert len(pids) == 4 + 2
        os.kill(min(pids - {each.pid for each in workers}), signal.SIGKILL)  # one of prefork's children
        client.wait_until(lambda: len(client.ask(at_work, MIDDLE)) > len(pids), "another child that goes on")
        for each in workers:
            os.killpg(each.pid, signal.SIGKILL)
    client.open_gate("middle")
    with start_worker("recovery_tasks", "threads", 16), start_worker("recovery_tasks", "custom", 30):
        for number, result in enumerate(sent):
            assert result.get(timeout=WAIT) == [sum(range(STEPS)), True, f"user-{number % 7}"]
    for result in sent:
        rows = client.ask("SELECT fence, what, step FROM notes WHERE task_id = $1 ORDER BY id", result.id)
        fences = [row["fence"] for row in rows]
        assert fences == sorted(fences), "a run has gone on after the next one had begun"
        assert len(set(fences)) > 1, "it was not cut off"
        # Nothing before the last checkpoint is done again: a run begins in the step that was cut off, or after it.
        steps = [(row["fence"], row["step"]) for row in rows if row["what"] == "step"]
        assert (steps[0][1], steps[-1][1]) == (0, STEPS - 1)
        for (fence, step), (fence_after, step_after) in pairwise(steps):
            assert step_after in ({step + 1} if fence_after == fence else {step, step + 1}), steps
        assert [row["what"] for row in rows].count("end") == 1
        assert client.state_of(result.id) == "ended"


def test_c3_a_frozen_worker_that_wakes_up_is_refused(tasks, client, start_worker) -> None:
    """Another worker has resumed its task: it is told so at its next checkpoint or renewal, and cancelled."""
    with start_worker("recovery_tasks", "threads", 2) as frozen:
        with as_user(User("ada", {"tenant": "analytical"})):
            held = tasks.hold.delay("gate")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            with start_worker("recovery_tasks", "custom", 2):
                client.wait_until(
                    lambda: client.notes(held.id)[2:] == [("begin", 50), ("half", None)], "a second run"
                )
                os.kill(frozen.pid, signal.SIGCONT)
                client.wait_until(lambda: ("cleaned", None) in client.notes(held.id), "the end of the first run")
                client.open_gate("gate")
                assert held.get(timeout=WAIT) == "fence 3"  # the sweep has taken it in between, as fence 2
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
    rows = client.ask("SELECT fence FROM notes WHERE task_id = $1 AND what = 'cleaned' ORDER BY id", held.id)
    assert [row["fence"] for row in rows] == [1, 3]


@pytest.mark.parametrize("pool", ["prefork", "gevent", "custom"])
def test_c3_what_ends_is_not_resumed(tasks, client, start_worker, pool: str) -> None:
    """Success, failure, retries, both limits, revocation: none is taken for a loss, a duplicate does not run."""
    with start_worker("recovery_tasks", pool, 4):
        retried, failed = tasks.retried.delay(), tasks.fails.delay()
        softly, hard = tasks.limited.delay("never"), tasks.limited_hard.delay("never")
        plain, revoked = tasks.without_context.delay(41), tasks.hold.delay("never")
        replaced = tasks.counts_down.delay(2)
        assert retried.get(timeout=WAIT) == [1, 0]
        assert softly.get(timeout=WAIT) == "softly"
        assert plain.get(timeout=WAIT) == 42
        assert replaced.get(timeout=WAIT) >= 3
        for result, error in ((failed, LookupError), (hard, TimeLimitExceeded)):
            with pytest.raises(error):
                result.get(timeout=WAIT)
        client.wait_until(lambda: ("half", None) in client.notes(revoked.id), "the task to be revoked")
        tasks.app.control.revoke(revoked.id, terminate=True)
        with pytest.raises(TaskRevokedError):
            revoked.get(timeout=WAIT)
        held = tasks.hold.delay("gate")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "the task with a duplicate")
        tasks.hold.apply_async(("gate",), task_id=held.id)  # its first run goes on
        tasks.fails.apply_async(task_id=failed.id)  # its first run has ended
        assert tasks.without_context.delay(1).get(timeout=WAIT) == 2  # and by now the duplicates have been seen
        client.open_gate("gate")
        assert held.get(timeout=WAIT) == "fence 1"
        every = [each.id for each in (retried, failed, softly, hard, plain, replaced, revoked, held)]
        client.wait_until(lambda: {client.state_of(each) for each in every} == {"ended"}, "the ends")
    assert client.notes(failed.id) == [("begin", None)]
    assert client.notes(retried.id) == [("begin", 0), ("begin", 1), ("begin", 2)]
    assert [what for what, _ in client.notes(revoked.id)] in (["begin", "half"], ["begin", "half", "cleaned"])
    assert len(client.notes(hard.id)) == 1
    assert [what for what, _ in client.notes(held.id)] == ["begin", "half", "cleaned"]


@pytest.mark.parametrize("pool", ["threads", "custom"])
def test_c3_a_cold_shutdown_hands_over(
    tasks, client, start_worker, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it cuts off is resumed by the next worker at once, not when the lease is over."""
    monkeypatch.setenv("RECOVERY_LEASE", "600")
    with start_worker("recovery_tasks", pool, 2, warm=False) as worker:
        held = tasks.hold.delay("gate")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
        os.kill(worker.pid, signal.SIGQUIT)
        worker.wait(WAIT)
    client.open_gate("gate")
    with start_worker("recovery_tasks", "threads", 2):
        assert held.get(timeout=WAIT).startswith("fence ")
    assert ("begin", 50) in client.notes(held.id)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_c3_a_crash_loop_ends(tasks, client, start_worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that kills its workers is given up, who waits is told; it can be listed, sent again, discarded."""
    monkeypatch.setenv("RECOVERY_MAX_LOSSES", "1")
    monkeypatch.setenv("RECOVERY_LEASE", "1")
    with start_worker("recovery_tasks", "prefork", 2):
        killer = tasks.kills_its_worker.delay()
        with pytest.raises(TaskLostError, match="has lost its worker 2 times without getting further"):
            killer.get(timeout=WAIT)
        assert client.notes(killer.id) == [("begin", None)] * 2
        (dead,) = run(tasks.recovery.list_tasks, "dead", timeout=WAIT)
        assert (dead.task_id, dead.name, dead.losses) == (killer.id, "recovery_tasks.kills_its_worker", 2)
        assert run(tasks.recovery.requeue, killer.id, timeout=WAIT)
        client.wait_until(lambda: len(client.notes(killer.id)) == 3, "one more")
        assert run(tasks.recovery.discard, killer.id, timeout=WAIT)
        assert not run(tasks.recovery.requeue, killer.id, timeout=WAIT)
        assert client.state_of(killer.id) == "ended"
    default_runtime().close()
    gc.collect()  # the thread that sent it has left Celery's connection to Redis to the collector


def test_c3_the_table_shows_neither_arguments_nor_payloads(tasks, client, start_worker) -> None:
    """Only what is documented as readable is."""
    with start_worker("recovery_tasks", "threads", 2):
        with as_user("grace-hopper"):
            held = tasks.hold.delay("a-secret-name")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
        (row,) = client.ask("SELECT * FROM homeloop_recovery")
        client.open_gate("a-secret-name")
        held.get(timeout=WAIT)
        client.wait_until(lambda: client.state_of(held.id) == "ended", "the end")
    text = " ".join(bytes(each).decode() if isinstance(each, bytes) else str(each) for each in row.values())
    assert "half" in text
    assert "secret" not in text
    assert "grace" not in text
    (ended,) = client.ask("SELECT message, step, percent FROM homeloop_recovery")
    assert tuple(ended) == (None, '"most"', 80)  # 60 is not 25 percent further than 50
