"""Recovery where something is broken, late or twice there: workers, messages, the database, the broker."""

import asyncio
import os
import signal
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homeloop.adapters.celery.recovery._revocations import Revocations
from homeloop.errors import UserContextError

WAIT = 60.0  # seconds for anything; tells a hang from an answer
pytestmark = [
    pytest.mark.needs("redis", "postgres"),
    pytest.mark.timeout(180),
]


@pytest.fixture
def line(own_database: str, lines, monkeypatch: pytest.MonkeyPatch):
    """What the workers reach recovery's table over; not what their tasks do in the database."""
    line = lines(own_database)
    monkeypatch.setenv("RECOVERY_STORE_DSN", line.url)
    return line


@pytest.fixture
def logged(tmp_path: Path) -> Callable[[str, str], bool]:
    """Tell whether a worker has logged something."""
    return lambda pool, text: text in (tmp_path / f"recovery_tasks-{pool}.log").read_text()


# -- a worker that was replaced -----------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["threads", "custom"])
def test_c3_a_worker_that_was_replaced_sends_no_retry(tasks, client, start_worker, pool: str) -> None:
    """It would take the task from its holder."""
    with start_worker("recovery_tasks", pool, 2) as frozen:
        held = tasks.retries_when_cut.delay("gate")
        client.wait_until(lambda: client.notes(held.id) == [("begin", 0)], "the beginning")
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            with start_worker("recovery_tasks", "prefork", 2):
                client.wait_until(lambda: len(client.fences(held.id, "begin")) == 2, "a second run")
                os.kill(frozen.pid, signal.SIGCONT)
                client.wait_until(lambda: client.fences(held.id, "cut") == [1], "the end of the first run")
                assert tasks.plain.delay(1).get(timeout=WAIT) == 1
                client.open_gate("gate")
                assert held.get(timeout=WAIT) == "fence 3"
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
    assert client.notes(held.id) == [("begin", 0), ("begin", 0), ("cut", None)]
    assert client.state_of(held.id) == "ended"


@pytest.mark.parametrize("pool", ["prefork", "threads", "custom"])
def test_c3_a_lease_that_is_over_after_the_body_counts_too(tasks, client, start_worker, pool: str) -> None:
    """Neither result nor callback of a run whose function had returned when it lost its task."""
    task_id = str(uuid.uuid4())
    with start_worker("recovery_tasks", pool, 1):
        held = tasks.ends_late.apply_async(task_id=task_id, link=tasks.hears.s(task_id))
        client.wait_until(lambda: client.notes(held.id) == [("begin", None)], "the beginning")
        other = "custom" if pool == "threads" else "threads"
        with start_worker("recovery_tasks", other, 1):
            assert held.get(timeout=WAIT) == "fence 3"
            Path(f"{tasks.log}.go").touch()
            client.wait_until(lambda: ("fence 3", None) in client.notes(held.id), "the callback")
    assert client.fences(held.id, "begin") == [1, 3]
    assert [what for what, _ in client.notes(held.id)] == ["begin", "begin", "fence 3"]


# -- messages that come late, or twice ----------------------------------------------------------------


def test_c3_a_task_that_has_begun_does_not_expire(tasks, client, start_worker) -> None:
    """``expires`` says when it must have begun: it is sent again without."""
    expires = datetime.now(UTC) + timedelta(seconds=15)
    with start_worker("recovery_tasks", "threads", 2, warm=False):
        held = tasks.hold.apply_async(("gate",), expires=expires)
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
    client.wait_until(lambda: datetime.now(UTC) > expires, "its time to be over")
    client.open_gate("gate")
    with start_worker("recovery_tasks", "threads", 2):
        assert held.get(timeout=WAIT) == "fence 3"


def test_c3_an_expired_duplicate_ends_nothing(tasks, client, start_worker) -> None:
    """The task goes on, and is sent again when it is lost, also to the worker that has seen the duplicate."""
    with start_worker("recovery_tasks", "prefork", 2):
        held = tasks.hold.delay("gate")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
        tasks.hold.apply_async(("gate",), task_id=held.id, expires=datetime.now(UTC) - timedelta(minutes=1))
        assert tasks.plain.delay(1).get(timeout=WAIT) == 1  # and by now the duplicate has been seen
        assert client.state_of(held.id) == "running"
        (child,) = {row["pid"] for row in client.ask("SELECT pid FROM notes WHERE task_id = $1", held.id)}
        os.kill(child, signal.SIGKILL)
        client.open_gate("gate")
        client.wait_until(lambda: client.fences(held.id, "cleaned") == [3], "a second run")
        client.wait_until(lambda: client.state_of(held.id) == "ended", "the end")


def test_c3_a_retry_that_is_asked_for_in_passing(tasks, client, start_worker) -> None:
    """``retry(throw=False)``: the run goes on to its end, and the retry resumes."""
    with start_worker("recovery_tasks", "custom", 2):
        sent = tasks.retries_quietly.delay()
        client.wait_until(lambda: client.notes(sent.id) == [("begin", 0), ("begin", 1)], "the retry")
        client.wait_until(lambda: client.state_of(sent.id) == "ended", "the end")


def test_c3_a_checkpoint_that_cannot_be_opened_ends_its_task(tasks, client, start_worker) -> None:
    """It fails once, and is not sent again for ever."""
    with start_worker("recovery_tasks", "threads", 2, warm=False):
        held = tasks.hold.delay("gate")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
    client.ask("UPDATE homeloop_recovery SET payload = 'x' WHERE task_id = $1", held.id)
    with start_worker("recovery_tasks", "threads", 2):
        with pytest.raises(UserContextError, match="recovery payload of app recovery of task"):
            held.get(timeout=WAIT)
        client.wait_until(lambda: client.state_of(held.id) == "ended", "the end")


# -- a database that hangs ----------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "custom"])
def test_c3_a_task_that_cannot_be_claimed_goes_back(tasks, client, start_worker, line, logged, pool: str) -> None:
    """It runs when the database answers again."""
    with start_worker("recovery_tasks", pool, 2):
        assert tasks.without_context.delay(0).get(timeout=WAIT) == 1
        line.hang()
        sent = tasks.without_context.delay(1)
        client.wait_until(lambda: logged(pool, "cannot be claimed"), "a claim in vain")
        line.heal()
        assert sent.get(timeout=WAIT) == 2


def test_c3_a_sweep_that_hangs_is_given_up(tasks, client, start_worker, line, logged, monkeypatch) -> None:
    """The next one is made over another connection."""
    with start_worker("recovery_tasks", "threads", 2):
        assert tasks.without_context.delay(0).get(timeout=WAIT) == 1
        line.hang()
        client.wait_until(lambda: line.is_tried, "a sweep")
        client.wait_until(lambda: logged("threads", "cannot look for lost tasks"), "its end")
        line.heal()
        monkeypatch.delenv("RECOVERY_STORE_DSN")
        with start_worker("recovery_tasks", "custom", 2, warm=False) as other:
            held = tasks.hold.delay("gate")
            again = tasks.hold.delay("gate")  # they share it out
            both = (held.id, again.id)
            client.wait_until(lambda: all(("half", None) in client.notes(each) for each in both), "half of both")
            os.killpg(other.pid, signal.SIGKILL)
        client.open_gate("gate")
        for each in (held, again):
            assert each.get(timeout=WAIT).startswith("fence ")


def test_c3_ends_that_cannot_be_written_keep_no_threads(
    tasks, client, start_worker, line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of the pool wait for the database in vain once, not for each task; the ends come later."""
    monkeypatch.setenv("RECOVERY_LEASE", "8")
    with start_worker("recovery_tasks", "custom", 100):
        sent = [tasks.hold_first.delay("gate") for _ in range(100)]
        at_work = "SELECT count(DISTINCT task_id) FROM notes"
        client.wait_until(lambda: client.ask(at_work)[0]["count"] == len(sent), "all at work")
        line.hang()
        client.open_gate("gate")
        for each in sent:
            assert each.get(timeout=WAIT) == "done"
        line.heal()
        ended = "SELECT count(*) FROM homeloop_recovery WHERE state = 'ended'"
        client.wait_until(lambda: client.ask(ended)[0]["count"] == len(sent), "the ends")


@pytest.mark.parametrize("pool", ["prefork", "threads", "custom"])
def test_c3_a_worker_that_ends_writes_the_ends_that_are_left(
    tasks, client, start_worker, line, logged, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They could not be written before; a lease is long, and so is the time to the next try."""
    monkeypatch.setenv("RECOVERY_LEASE", "600")
    with start_worker("recovery_tasks", pool, 2):
        sent = [tasks.hold_first.delay("gate") for _ in range(2)]
        client.wait_until(lambda: all(client.notes(each.id) for each in sent), "both at work")
        line.hang()
        client.open_gate("gate")
        for each in sent:
            assert each.get(timeout=WAIT) == "done"
        client.wait_until(lambda: logged(pool, "was not told of the end"), "an end that cannot be written")
        line.heal()
    assert [client.state_of(each.id) for each in sent] == ["ended", "ended"]


def test_c3_a_worker_that_ends_waits_for_its_revocations() -> None:
    """Those that are on their way, and those that came meanwhile; afterwards there may be others."""
    ended: list[str] = []
    begun, going_on = threading.Event(), threading.Event()

    async def end(task_id: str) -> None:
        begun.set()
        await asyncio.to_thread(going_on.wait, WAIT)
        ended.append(task_id)

    revocations = Revocations(end)
    revocations.wait(WAIT)
    revocations.add("1")
    assert begun.wait(WAIT)
    revocations.add("2")
    revocations.add("3")
    going_on.set()
    revocations.wait(WAIT)
    assert sorted(ended) == ["1", "2", "3"]
    revocations.add("4")
    revocations.wait(WAIT)
    assert len(ended) == 4


def test_c3_revocations_do_not_keep_the_worker(tasks, client, start_worker, line) -> None:
    """Nor do they keep it from putting another child in the place of one that was terminated."""
    with start_worker("recovery_tasks", "prefork", 1):
        held = tasks.hold.delay("never")
        client.wait_until(lambda: ("half", None) in client.notes(held.id), "half of the work")
        line.hang()
        revoked = [f"{held.id}-{number}" for number in range(20)]
        tasks.app.control.revoke(revoked, reply=True, timeout=WAIT, limit=1)
        for each in revoked:
            tasks.without_context.apply_async((1,), task_id=each)
        tasks.app.control.revoke(held.id, terminate=True)
        assert tasks.plain.delay(1).get(timeout=WAIT) == 1
        line.heal()
