"""`celery_async_task` on an app that nobody installed anything in."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from celery import Celery

import homeloop
from homeloop.adapters.celery import install, user_aware_task
from homeloop.async_utils import celery_async_task

TOGETHER = 16


@pytest.fixture(params=["plain", "installed", "finalized before"])
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app; nobody said where a database is."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("SERVICE_DATABASE_URL", raising=False)
    app = Celery(request.param, broker="memory://", backend="cache+memory://", set_as_current=False)
    if request.param == "installed":
        install(app)
    if request.param == "finalized before":
        app.finalize()
    yield app
    homeloop.default_runtime().close()


def test_a2_a_task_has_its_own_request(app: Celery) -> None:
    """Interleaved on one loop, also in the very first calls; the decorators leave Celery its argument check."""

    @app.task(bind=True)
    @user_aware_task
    @celery_async_task
    async def who(self, number: int) -> list[object]:
        before = self.request.id
        await asyncio.sleep(0)
        return [number, before, await asyncio.to_thread(lambda: self.request.id)]

    app.finalize()  # which Celery does not do in a thread-safe way
    ready = Barrier(TOGETHER)

    def call(number: int) -> object:
        ready.wait(10)
        return who.apply((number,), task_id=f"task-{number}").get()

    with ThreadPoolExecutor(TOGETHER) as pool:
        expected = [[number, f"task-{number}", f"task-{number}"] for number in range(TOGETHER)]
        assert list(pool.map(call, range(TOGETHER))) == expected
    assert who(5) == [5, None, None]
    with pytest.raises(TypeError, match="number"):
        who.delay()


def test_a2_retries_errors_and_calls_keep_their_meaning(app: Celery) -> None:
    """`self.retry`, autoretry, an error, a direct call, and one that another coroutine awaits."""

    @app.task(bind=True, max_retries=3)
    @celery_async_task
    async def retried(self) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    @app.task(bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0)
    @celery_async_task
    async def autoretried(self) -> int:
        if self.request.retries < 2:
            raise ConnectionError
        return int(self.request.retries)

    @app.task
    @celery_async_task
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    @app.task
    @celery_async_task
    async def calls() -> int:
        return await add(1, 2) + await asyncio.to_thread(add, 3, 4)

    @celery_async_task
    async def plain(number: int) -> int:
        return number

    assert retried.apply().get() == 2
    assert autoretried.apply().get() == 2
    assert add(1, 2) == 3
    assert calls.apply().get() == 10
    assert plain(1) == 1
    with pytest.raises(TypeError):
        add.apply(("x", 1)).get()
