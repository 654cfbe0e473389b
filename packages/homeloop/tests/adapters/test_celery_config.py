"""The recommended settings are Celery's, workers start with them, and the document says what they are."""

import importlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery
from celery.app import defaults
from celery.result import AsyncResult

from homeloop.adapters.celery import _config, recommended_config
from homeloop.errors import ConfigurationError

WAIT = 60.0  # seconds for a result; tells a hang from an answer
PAGE = Path(__file__).parents[4] / "docs" / "reference" / "celery-config.md"
KNOWN = dict(defaults.flatten(defaults.NAMESPACES))


@pytest.mark.parametrize("broker", _config.BROKERS)
@pytest.mark.parametrize("pool", _config.POOLS)
def test_c5_every_setting_is_celerys_and_has_a_reason(pool: _config.Pool, broker: _config.Broker) -> None:
    """By its name and type; none repeats what Celery does anyhow, but for what is to change."""
    settings = recommended_config(pool, broker)
    app = Celery("config", set_as_current=False)
    app.conf.update(settings)
    for name, value in settings.items():
        option = KNOWN[name]
        assert getattr(app.conf, name) == value
        assert option.to_python(value) == value
        assert option.default != value or name == "broker_connection_retry_on_startup"
        assert settings.reasons[name].endswith(".")
    assert set(settings.reasons) == set(settings)
    assert f"task_acks_late = True  # {settings.reasons['task_acks_late']}" in str(settings)


def test_c5_each_setting_is_said_once_for_a_pool_and_a_broker() -> None:
    """Else the last one would win unseen."""
    for pool in _config.POOLS:
        for broker in _config.BROKERS:
            names = [each.name for each in _config.SETTINGS if each.fits(pool, broker)]
            assert len(names) == len(set(names))


def test_c5_an_unknown_pool_or_broker_is_refused() -> None:
    """With the names that are known."""
    with pytest.raises(ConfigurationError, match="there is no pool 'process'; choose one of prefork, threads"):
        recommended_config("process")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no settings for broker 'kafka'; choose redis, rabbitmq, other"):
        recommended_config(broker="kafka")  # type: ignore[arg-type]


IMPLEMENTATIONS = {
    "prefork": "celery.concurrency.prefork.TaskPool",
    "threads": "celery.concurrency.thread.TaskPool",
    "solo": "celery.concurrency.solo.TaskPool",
    "gevent": "celery.concurrency.gevent.TaskPool",
    "eventlet": "celery.concurrency.eventlet.TaskPool",
    "asyncio": "homeloop.adapters.celery.pool.TaskPool",
}


@pytest.mark.needs("redis", "rabbitmq", "postgres")
@pytest.mark.timeout(180)
def test_c5_workers_run_as_recommended(
    celery_environment: None,
    start_worker,
    close_client: Callable[[Celery], None],
    redis_url: str,
    rabbitmq_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of each pool: the settings alone choose it, save where the process must be patched first."""
    queue = os.environ["SEED_QUEUE"]
    with ExitStack() as workers:
        for pool, implementation in IMPLEMENTATIONS.items():
            broker = "rabbitmq" if pool == "solo" else "redis"
            monkeypatch.setenv("RECOMMENDED_POOL", pool)
            monkeypatch.setenv("RECOMMENDED_BROKER", broker)
            monkeypatch.setenv("RECOMMENDED_URL", {"redis": redis_url, "rabbitmq": rabbitmq_url}[broker])
            monkeypatch.setenv("SEED_QUEUE", f"{queue}-{pool}")
            monkeypatch.setenv("SEED_LOG", str(tmp_path / pool))
            on_command_line = pool if pool in ("gevent", "eventlet") else None
            workers.enter_context(start_worker("recommended_tasks", on_command_line, None, warm=False))
            import recommended_tasks

            tasks = importlib.reload(recommended_tasks)  # the same module each time, with another app
            workers.callback(_forget, tasks.app, close_client)
            workers.callback(_check, tasks.app, tasks.log, tasks.add.delay(1, 2), implementation)


def _check(app: Celery, log: Path, result: AsyncResult, expected: str) -> None:
    assert result.get(timeout=WAIT) == 3
    # Not asked of the worker: eventlet's does not always answer.
    implementation, limit = log.read_text().split()
    assert implementation == expected
    assert limit == str(app.conf.worker_concurrency) or app.conf.worker_concurrency is None


def _forget(app: Celery, close_client: Callable[[Celery], None]) -> None:
    with app.connection_for_write() as connection, connection.channel() as channel:
        channel.queue_delete(app.conf.task_default_queue)
    close_client(app)


def _page() -> str:
    lines = [
        "| setting | value | pools | brokers | why |",
        "|---|---|---|---|---|",
    ]
    for each in _config.SETTINGS:
        pools, brokers = (", ".join(names) or "all" for names in (each.pools, each.brokers))
        lines.append(f"| `{each.name}` | `{each.value!r}` | {pools} | {brokers} | {each.reason} |")
    return "\n".join(lines)


def test_c5_the_document_says_what_is_recommended() -> None:
    """The table in docs/reference/celery-config.md is that of the code; if not, here is the one to put there."""
    assert _page() in PAGE.read_text("utf-8"), _page()
