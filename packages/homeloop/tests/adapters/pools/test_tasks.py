"""What tasks do while all is well, and what they raise: on each pool, with each broker."""

import time
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError

from homeloop.errors import SelfCancelledError

pytestmark = pytest.mark.timeout(120)
WAIT = 30.0  # seconds for a result


def test_result(worker) -> None:  # type: ignore[no-untyped-def]
    """Result of an async task."""
    assert worker.tasks.add.delay(1, 2).get(timeout=WAIT) == 3


def test_exception(worker) -> None:  # type: ignore[no-untyped-def]
    """Exception, with the coroutine's line in its traceback."""
    result = worker.tasks.fail.delay("async boom")
    with pytest.raises(LookupError, match="async boom"):
        result.get(timeout=WAIT)
    assert "raise LookupError(message)" in result.traceback


def test_cancels_itself(worker) -> None:  # type: ignore[no-untyped-def]
    """A coroutine that cancels itself: the task fails, its error says so."""
    for how in ("raises it", "asks for it", "awaits what is cancelled"):
        result = worker.tasks.cancels_itself.apply_async((how,), link_error=worker.tasks.took_error.s())
        with pytest.raises(SelfCancelledError, match=r"'pool_tasks.cancels_itself' cancelled itself"):
            result.get(timeout=WAIT)
        assert "in cancels_itself" in result.traceback
        worker.wait_for("errors", f"{result.id} SelfCancelledError")
    assert worker.tasks.add.delay(1, 1).get(timeout=WAIT) == 2


def test_cancels_itself_last(worker) -> None:  # type: ignore[no-untyped-def]
    """A coroutine that requests its own cancellation as its last act: the task succeeds."""
    assert worker.tasks.cancels_itself_last.delay().get(timeout=WAIT) == "all of it"


def test_sync_tasks(worker) -> None:  # type: ignore[no-untyped-def]
    """Sync tasks beside async ones, also calling `homeloop.run`."""
    tasks = worker.tasks
    sent = [task.delay(i, 1) for i in range(10) for task in (tasks.add, tasks.add_sync, tasks.add_through_run)]
    assert [each.get(timeout=WAIT) for each in sent] == [i + 1 for i in range(10) for _ in range(3)]


def test_logging(worker) -> None:  # type: ignore[no-untyped-def]
    """Logging, from coroutines and sync tasks at the same time."""
    tasks, lines = worker.tasks, 300
    sent = [task.delay(lines) for _ in range(10) for task in (tasks.logs, tasks.logs_sync)]
    assert [each.get(timeout=WAIT) for each in sent] == [lines] * len(sent)


def test_own_request(worker) -> None:  # type: ignore[no-untyped-def]
    """`bind`, `self.request` and `current_task`, interleaved."""
    asked = [worker.tasks.who.delay() for _ in range(24)]
    for result in asked:
        assert result.get(timeout=WAIT) == [result.id] * 4


def test_retry(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """`self.retry`."""
    assert worker.tasks.retried.delay(key).get(timeout=WAIT) == 2
    assert worker.read(key).split("\n") == ["run 0", "run 1", "run 2", ""]


def test_autoretry(worker) -> None:  # type: ignore[no-untyped-def]
    """`autoretry_for`."""
    assert worker.tasks.autoretried.delay().get(timeout=WAIT) == 2


def test_reject(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """`Reject(requeue=True)`."""
    worker.tasks.rejected.delay(key).get(timeout=WAIT)
    assert worker.read(key).count("ran") == 2


def test_canvas(worker) -> None:  # type: ignore[no-untyped-def]
    """Chains, groups, maps, callbacks, `self.replace`, async and sync members mixed."""
    add, add_sync, total = worker.tasks.add, worker.tasks.add_sync, worker.tasks.total
    assert chain(add.s(1, 2), add_sync.s(3), add.s(4))().get(timeout=WAIT) == 10
    assert group(add.s(i, i) for i in range(5))().get(timeout=WAIT) == [0, 2, 4, 6, 8]
    assert chain(group(add.s(1, 1), add_sync.s(2, 2)), total.s())().get(timeout=WAIT) == 6
    assert add.starmap([(1, 2), (3, 4)]).delay().get(timeout=WAIT) == [3, 7]
    assert worker.tasks.replaced.delay(5, 6).get(timeout=WAIT) == 11
    linked = add.apply_async((1, 1), link=add.s(10))
    assert linked.get(timeout=WAIT) == 2
    assert linked.children[0].get(timeout=WAIT) == 12


def test_chord(worker) -> None:  # type: ignore[no-untyped-def]
    """Chords of async members with an async body; a member's failure."""
    add, total = worker.tasks.add, worker.tasks.total
    assert chord(group(add.s(i, i) for i in range(5)))(total.s()).get(timeout=WAIT) == 20
    failed = chord([add.s(1, 1), worker.tasks.fail.s("member")])(total.s())
    error = failed.get(timeout=WAIT, propagate=False)
    assert isinstance(error, ChordError)
    assert "LookupError('member')" in str(error)


def test_errback(worker) -> None:  # type: ignore[no-untyped-def]
    """An async errback (`link_error`)."""
    result = worker.tasks.fail.apply_async(("for the errback",), link_error=worker.tasks.took_error.s())
    worker.wait_for("errors", f"{result.id} LookupError('for the errback')")


def test_calls_within(worker) -> None:  # type: ignore[no-untyped-def]
    """Direct calls, `.apply()` and eager mode inside the worker."""
    assert worker.tasks.calls_others_sync.delay().get(timeout=WAIT) == [3, 7, ["inner"] * 4]
    asked = worker.tasks.calls_others.delay()
    assert asked.get(timeout=WAIT) == [3, 7, 11, ["inner"] * 4, asked.id]


def test_sends_tasks(worker) -> None:  # type: ignore[no-untyped-def]
    """Tasks and groups sent by async tasks, while Celery sends callbacks."""
    tasks, pairs = worker.tasks, []
    for _ in range(10):
        pairs.append((chain(tasks.add.s(1, 1), tasks.add.s(1)).delay(), tasks.sends.delay(5)))
    for chained, sender in pairs:
        assert chained.get(timeout=WAIT) == 3
        sent = sender.get(timeout=WAIT)
        assert [worker.result_of(each) for each in sent] == [0, 2, 4, 6, 8] * 2


def test_context_variables(worker) -> None:  # type: ignore[no-untyped-def]
    """Context variables: seen in the task's threads, never by the next task."""
    for value in map(str, range(20)):
        assert worker.tasks.sets_variable.delay(value).get(timeout=WAIT) == ["nobody", value, value]


def test_one_runtime(worker) -> None:  # type: ignore[no-untyped-def]
    """One runtime per process, warmed up before its first task."""
    seen = {tuple(worker.tasks.where.delay().get(timeout=WAIT)) for _ in range(20)}
    pids = {pid for pid, _, _ in seen}
    assert len(seen) == len(pids) <= (worker.size if worker.pool == "prefork" else 1)
    opened = worker.read("resources")
    assert all(opened.count(f"opened {pid}\n") == 1 for pid in pids)
    assert (str(worker.process.pid) in opened) == (worker.pool != "prefork")


def test_eta(worker) -> None:  # type: ignore[no-untyped-def]
    """ETA and countdown."""
    started, due = worker.tasks.when.apply_async(countdown=0.5).get(timeout=WAIT)
    assert started >= due


def test_expiry(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """An expired task does not run."""
    result = worker.tasks.counted.apply_async((key,), expires=datetime.now(UTC) - timedelta(minutes=1))
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=WAIT)
    assert worker.read(key) == ""


@pytest.mark.whole_table
def test_rate_limit(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Rate limits."""
    name = worker.tasks.counted.name
    assert "ok" in worker.command("rate_limit", name, "12/m")
    try:
        worker.tasks.counted.delay(key).get(timeout=WAIT)
        second = worker.tasks.counted.delay(key)
        worker.wait_until(lambda: f"{name}[{second.id}] received" in worker.output(), "the second")
        assert worker.inspect("active") == []
        assert worker.read(key).count("ran") == 1
        second.get(timeout=WAIT)
        assert worker.read(key).count("ran") == 2
    finally:
        worker.command("rate_limit", name, 0)


def test_signals(worker, key: str) -> None:  # type: ignore[no-untyped-def]
    """Signals: prerun, postrun, success, failure, retry, revoked."""
    tasks = worker.tasks
    worker.command("revoke", key)  # not one that has expired: RabbitMQ may drop that before a worker sees it
    expected = {
        tasks.add.delay(1, 2).id: ["postrun", "prerun", "success"],
        tasks.fail.delay("signal").id: ["failure", "postrun", "prerun"],
        tasks.retried.delay(key).id: sorted(["prerun", "postrun"] * 3 + ["retry"] * 2 + ["success"]),
        tasks.add.apply_async((1, 2), task_id=key).id: ["revoked"],
    }

    def seen() -> dict[str, list[str]]:
        lines = [line.split() for line in worker.read("signals").splitlines()]
        return {task: sorted(signal for signal, its in lines if its == task) for task in expected}

    worker.wait_until(lambda: sum(map(len, seen().values())) >= sum(map(len, expected.values())), "all signals")
    assert seen() == expected


def test_events(worker) -> None:  # type: ignore[no-untyped-def]
    """Events: received, started, succeeded, failed, retried, revoked."""
    tasks, begun = worker.tasks, {"task-received", "task-started"}
    kinds = {
        "add": begun | {"task-succeeded"},
        "fail": begun | {"task-failed"},
        "retried": begun | {"task-retried", "task-succeeded"},
        "revoked": {"task-revoked"},
    }
    seen: dict[str, set[str]] = {}
    sent = count()

    def send() -> None:
        name = f"{worker.hostname}-{next(sent)}"
        worker.command("revoke", f"{name}-revoked")  # not one that has expired, see the signals
        tasks.add.apply_async((1, 2), task_id=f"{name}-add")
        tasks.fail.apply_async(("event",), task_id=f"{name}-fail")
        tasks.retried.apply_async((name,), task_id=f"{name}-retried")
        tasks.add.apply_async((1, 2), task_id=f"{name}-revoked")

    def on_event(event: dict[str, str]) -> None:
        if event["type"].startswith("task-") and event["uuid"].startswith(worker.hostname):
            seen.setdefault(event["uuid"].rpartition("-")[2], set()).add(event["type"])

    # Of several tasks together: before 5.7 Celery loses an event that a thread sends while it publishes others.
    deadline = time.monotonic() + WAIT
    with tasks.app.connection_for_read() as connection:
        receiver = tasks.app.events.Receiver(connection, handlers={"*": on_event})
        with receiver.consumer_context() as (subscribed, _, _):
            while seen != kinds:
                assert time.monotonic() < deadline, seen
                try:
                    subscribed.drain_events(timeout=1)
                except TimeoutError:  # events are not stored: those of before the subscription are lost
                    send()
