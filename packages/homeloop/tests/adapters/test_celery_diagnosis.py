"""A task that fails for an event loop fault says so, in its result's traceback or in the worker's log."""

from pathlib import Path

import pytest

WAIT = 30.0  # seconds for a result


@pytest.fixture
def failing(celery_environment: None, load_app):  # type: ignore[no-untyped-def]
    """The app's module, as the sender sees it."""
    return load_app("failing_tasks")


@pytest.mark.needs("redis")
@pytest.mark.parametrize("pool", ["prefork", "threads", "custom"])
def test_traceback_carries_the_diagnosis(
    failing, start_worker, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """On each pool; a sync task's is in the log only, and an application's own words are not explained."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    with start_worker("failing_tasks", pool, 2):
        results = [task.delay() for task in (failing.nested, failing.own_words, failing.without_loop)]
        for result in results:
            result.get(timeout=WAIT, propagate=False)
        nested, own_words, _ = results
        assert "error[LOOP201]: a loop is started where one is already running" in nested.traceback
        assert "failing_tasks.py" in nested.traceback.partition("error[LOOP201]")[2]
        assert "error[" not in own_words.traceback
    log = (tmp_path / f"failing_tasks-{pool}.log").read_text()
    assert "error[LOOP201]" in log
    assert "error[LOOP202]" in log
