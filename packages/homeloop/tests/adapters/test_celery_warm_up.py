"""A warm-up that hangs does not keep a worker from starting, and says so."""

from pathlib import Path

import pytest

WAIT = 30.0  # seconds for a result


@pytest.mark.needs("redis")
@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["hangs", "blocks"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "custom"])
def test_a_warm_up_is_bounded(
    celery_environment: None, load_app, start_worker, pool: str, how: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    """The log names what is waited for, then that it failed; also in the children that prefork starts later."""
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    monkeypatch.setenv("WARM_UP", how)
    tasks = load_app("warm_up_tasks")
    with start_worker("warm_up_tasks", pool, 1):
        for _ in range(2):
            assert tasks.what_is_warm.delay().get(timeout=WAIT) == ["is fast"]
    log = (tmp_path / f"warm_up_tasks-{pool}.log").read_text()
    assert f"waits for warm_up <function {how} at" in log
    assert f"<function {how} at" in log.partition("could not be warmed up")[0].rpartition("ERROR")[2]
    assert "did not finish within" in log
    assert "Timed out waiting for UP message" not in log
