"""What a worker had when Redis went away is delivered again when Redis is back."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from kombu import Connection, Queue

from homeloop.adapters.celery._give_back import GiveBack

WAIT = 30.0  # seconds


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "asyncio"])
def test_messages_are_given_back_when_redis_is_there_again(  # type: ignore[no-untyped-def]
    celery_environment: None, redis_url: str, relay, load_app, start_worker, wait_until, pool: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """At once, not after the visibility timeout, which the recommended settings have at two hours."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    monkeypatch.setenv("AWAY_POOL", pool)
    monkeypatch.setenv("AWAY_BROKER", redis_url)
    tasks = load_app("away_tasks")
    monkeypatch.setenv("AWAY_BROKER", relay.url)
    name = "custom" if pool == "asyncio" else pool
    notes, log = tmp_path / "log", tmp_path / f"away_tasks-{name}.log"
    with start_worker("away_tasks", name, 2):
        result = tasks.held.delay()
        wait_until(lambda: notes.exists() and "begun" in notes.read_text(), "the task to begin")
        relay.go_away()
        wait_until(lambda: "Trying again in" in log.read_text(), "the worker to notice")
        relay.is_away = False
        assert result.get(timeout=WAIT) == "second run"


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
def test_what_another_worker_has_meanwhile_is_not_given_back(  # type: ignore[no-untyped-def]
    celery_environment: None, redis_url: str, relay, load_app, start_worker, wait_until, tmp_path: Path, redis,
    prefix: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A worker cut off for longer than the visibility timeout: its task is another one's, and is not run twice."""
    transport = {"global_keyprefix": prefix}
    monkeypatch.setenv("AWAY_TRANSPORT", json.dumps(transport))
    monkeypatch.setenv("AWAY_POOL", "threads")
    monkeypatch.setenv("AWAY_BROKER", redis_url)
    tasks = load_app("away_tasks")
    monkeypatch.setenv("AWAY_BROKER", relay.url)
    notes, log = tmp_path / "log", tmp_path / "away_tasks-threads.log"
    with (
        start_worker("away_tasks", "threads", 2),
        Connection(redis_url, transport_options=transport) as connection,
        connection.channel() as other,
    ):
        taken = tasks.held.delay()
        wait_until(lambda: notes.exists() and "begun" in notes.read_text(), "the task to begin")
        relay.go_away()
        wait_until(lambda: "Trying again in" in log.read_text(), "the worker to notice")
        (tag,) = redis.hkeys(f"{prefix}unacked")
        other.qos.restore_by_tag(tag)  # as a worker does when the time is over
        message = other.basic_get(tasks.app.conf.task_default_queue)
        assert message.headers["id"] == taken.id
        relay.is_away = False
        assert tasks.held.delay().get(timeout=WAIT) == "second run"  # the worker is back
        message.ack()
    assert notes.read_text().count("begun") == 2


@pytest.mark.needs("redis")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_greenlets_look_for_lost_messages_on_each_connection(  # type: ignore[no-untyped-def]
    celery_environment: None, redis_url: str, relay, load_app, start_worker, wait_until, pool: str, tmp_path: Path,
    prefix: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What a killed worker had comes back through the second connection of a worker as through the first."""
    transport = {
        "global_keyprefix": prefix, "visibility_timeout": 1, "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1, "unacked_mutex_expire": 1,  # a look that is cut off holds it so long
    }  # fmt: skip
    monkeypatch.setenv("AWAY_TRANSPORT", json.dumps(transport))
    monkeypatch.setenv("AWAY_POOL", pool)
    monkeypatch.setenv("AWAY_BROKER", relay.url)
    load_app("away_tasks")
    log = tmp_path / f"away_tasks-{pool}.log"
    with (
        Connection(redis_url, transport_options=transport) as connection,
        start_worker("away_tasks", pool, 2),
        connection.channel() as channel,
    ):
        nobodys = Queue(f"{prefix}lost")(channel)
        nobodys.declare()
        for is_again in (False, True):
            if is_again:
                relay.go_away()
                wait_until(lambda: "Trying again in" in log.read_text(), "the worker to notice")
                relay.is_away = False
            connection.Producer(channel).publish({}, routing_key=nobodys.name)
            with connection.channel() as killed:
                killed.do_restore = False
                assert nobodys.bind(killed).get() is not None
            wait_until(lambda: nobodys.get(no_ack=True), "the message to be given back")


@pytest.mark.needs("redis")
def test_a_kombu_that_keeps_its_notes_elsewhere_is_told_of(  # type: ignore[no-untyped-def]
    redis_url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the worker starts, not when it has lost something: then it goes on without giving back."""
    options = {"global_keyprefix": prefix}
    with Connection(redis_url, transport_options=options) as connection, connection.channel() as channel:
        consumer = SimpleNamespace(task_consumer=SimpleNamespace(channel=channel))
        step = GiveBack(consumer)
        known = channel.qos._delivered
        for notes, warnings in ((known, 0), ([], 1), (known, 0)):
            caplog.clear()
            channel.qos._delivered = notes
            step.start(consumer)
            assert len(caplog.records) == warnings
            assert all("delivered again after the visibility timeout" in each.message for each in caplog.records)
