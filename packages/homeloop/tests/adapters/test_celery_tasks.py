"""What the table of pools has no row for: lost children, what outlives a task, tasks without a worker."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel, ValidationError

import homeloop
from homeloop.adapters.celery import AsyncTask, install
from homeloop.errors import AdapterError

WAIT = 30.0  # seconds for a result


@pytest.fixture
def features(celery_environment: None, load_app):  # type: ignore[no-untyped-def]
    """The app's module, as the sender sees it."""
    return load_app("feature_tasks")


def _wait_for(log: Path, line: str) -> str:
    """Wait until a task has noted a line, at most the bound; return the whole log."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        text = log.read_text() if log.exists() else ""
        if line in text:
            return text
        time.sleep(0.02)
    raise AssertionError(f"no task noted {line!r}")


@pytest.mark.needs("redis")
def test_a_background_task_never_sees_another_tasks_request(features, start_worker, tmp_path: Path) -> None:
    """What outlives its Celery task sees none."""
    with start_worker("feature_tasks", "threads", 1):
        features.leaves_a_task_behind.delay().get(timeout=WAIT)
        features.next_one.delay().get(timeout=WAIT)
    assert "background sees None" in (tmp_path / "log").read_text()


@pytest.mark.needs("redis")
def test_a_killed_prefork_child_is_replaced_and_the_next_one_works(features, start_worker, tmp_path: Path) -> None:
    """kill -9 of a child in the middle of a coroutine: its successor has a runtime of its own."""
    with start_worker("feature_tasks", "prefork", 1):
        features.hold.delay()
        holding = next(line for line in _wait_for(tmp_path / "log", "holding").splitlines() if "holding" in line)
        os.kill(int(holding.split()[0]), signal.SIGKILL)
        assert features.add.delay(2, 2).get(timeout=WAIT) == 4


def test_eager_mode_apply_and_direct_calls_work() -> None:
    """No worker, no broker: the task runs where it is called, and sees its own request."""
    app = Celery("eager", broker="memory://", backend="cache+memory://")
    install(app)

    @app.task(bind=True)
    async def describe(self, x: int) -> tuple[str | None, int]:  # type: ignore[no-untyped-def]
        return self.request.id, x

    assert describe(1) == (None, 1)
    result = describe.apply((2,), task_id="here")
    assert result.get() == ("here", 2)
    app.conf.task_always_eager = True
    assert describe.delay(3).get()[1] == 3


async def nobody_awaits() -> int:
    raise AssertionError("it has been awaited")


def without_await(fn: Callable[[], Coroutine[Any, Any, int]]) -> Callable[[], Any]:
    """A decorator for sync functions on an async one."""

    @wraps(fn)
    def call() -> Any:
        return fn()

    return call


@pytest.mark.parametrize("bind", [False, True])
def test_a_coroutine_that_a_task_returns_is_a_failure(bind: bool) -> None:
    """Without a result backend it would be a success that has done nothing. It is closed: no warning."""
    app = Celery("forgotten", broker="memory://", backend="cache+memory://", set_as_current=False)
    install(app)

    async def forgets(*_: object) -> Any:
        return nobody_awaits()

    async def finds(*_: object) -> int:
        return 3

    with pytest.raises(AdapterError, match=r"^forgotten\.x returned a coroutine .* done; .* return await \.\.\.$"):
        app.task(forgets, name="forgotten.x", bind=bind).apply().get()
    with pytest.raises(AdapterError, match=r"^forgotten\.y returned a coroutine .* done; let the decorator below"):
        app.task(without_await(nobody_awaits), name="forgotten.y").apply().get()
    driven: Any = wraps(finds)(lambda *_: homeloop.run(finds))
    assert app.task(driven, name="forgotten.z", bind=bind).apply().get() == 3


def test_the_base_class_alone_is_enough() -> None:
    """``base=AsyncTask`` on one task, without install()."""
    app = Celery("base", broker="memory://")

    @app.task(base=AsyncTask)
    async def double(x: int) -> int:
        return 2 * x

    assert double(2) == 4


def test_arguments_are_still_checked_when_a_task_is_sent() -> None:
    """Celery's typing check sees the coroutine function's own signature."""
    app = Celery("typing", broker="memory://")
    install(app)

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        double.delay()


class Order(BaseModel):
    number: int


def test_pydantic_models_are_given_to_coroutines_and_dumped_for_them() -> None:
    """Celery's option does for `async def` what it does for `def`: it validates, and dumps what is returned."""
    app = Celery("models", broker="memory://", backend="cache+memory://", set_as_current=False)
    install(app)

    @app.task(pydantic=True, bind=True, autoretry_for=(LookupError,))
    async def following(self, order: Order, step: int = 1) -> Order:  # type: ignore[no-untyped-def]
        assert isinstance(order, Order)
        assert self.request.id == "asked"
        return Order(number=order.number + step)

    asked = following.apply(({"number": 41},), {"step": 1}, task_id="asked")
    assert asked.get(timeout=WAIT) == {"number": 42}
    with pytest.raises(ValidationError):
        following.apply(({"number": "no number"},), task_id="asked").get(timeout=WAIT)


def test_installing_twice_is_harmless_and_too_late_is_refused() -> None:
    """The error says where the call belongs."""
    app = Celery("late", broker="memory://")
    install(app)
    install(app)

    @app.task
    async def one() -> int:
        return 1

    assert one() == 1
    with pytest.raises(AdapterError, match="comes too late, tasks exist"):
        install(app)


def test_fast_locals_are_refused(script) -> None:  # type: ignore[no-untyped-def]
    """A Celery whose stacks cannot follow a coroutine is named, before anything is changed."""
    ended: subprocess.CompletedProcess[str] = script(
        """
from celery import Celery
from homeloop.adapters.celery import install
from homeloop.errors import AdapterError
try: install(Celery("fast", broker="memory://"))
except AdapterError as error: print(error)
""",
        USE_FAST_LOCALS="1",
    )
    assert "USE_FAST_LOCALS is set" in ended.stdout
