"""A soft time limit is seen inside the coroutine, as Celery documents it, and is still a cancellation."""

import asyncio
import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from homeloop.adapters.celery import install


def _soft_limit(_number: int, _frame: FrameType | None) -> None:
    raise SoftTimeLimitExceeded  # as a prefork child's handler does


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _limit_reached() -> None:
    """What the pool does to a child; the main thread waits for the coroutine meanwhile."""
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app without a broker, in a process that takes soft limits as a prefork child does."""
    made = Celery("limits", broker="memory://", backend="cache+memory://")
    install(made)
    before = signal.signal(signal.SIGUSR1, _soft_limit)
    yield made
    signal.signal(signal.SIGUSR1, before)
    made.close()


def test_a_coroutine_that_handles_its_limit_succeeds(app: Celery) -> None:
    """With what it returns; in the handler it may await, and have time-outs of its own."""

    @app.task
    async def limited() -> str:
        try:
            _limit_reached()
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "half of it"
        return "all of it"

    assert limited.apply().get() == "half of it"


def test_what_a_coroutine_raises_at_its_limit_is_what_the_task_fails_with(app: Celery) -> None:
    """So that a task may retry, or fail with an error of its own."""

    @app.task
    async def limited() -> None:
        try:
            _limit_reached()
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded as error:
            raise LookupError("too slow") from error

    with pytest.raises(LookupError, match="too slow"):
        limited.apply().get()


def test_a_coroutine_that_lets_its_limit_pass_fails_with_it_after_its_clean_up(app: Celery) -> None:
    """The exception that is seen on the way is Celery's own kind."""
    noted: list[object] = []

    @app.task
    async def limited() -> None:
        try:
            _limit_reached()
            await asyncio.Event().wait()
        except Exception as error:
            noted.append(isinstance(error, SoftTimeLimitExceeded))
            raise
        finally:
            await asyncio.sleep(0)
            noted.append("cleaned")

    with pytest.raises(SoftTimeLimitExceeded) as raised:
        limited.apply().get()
    assert type(raised.value) is SoftTimeLimitExceeded
    assert noted == [True, "cleaned"]


@pytest.mark.parametrize("where", ["in the body", "at the end"])
def test_a_task_group_ends_its_children_at_the_limit(app: Celery, where: str) -> None:
    """Wherever it waits; none of them outlives the Celery task."""
    noted: list[str] = []

    async def child() -> None:
        try:
            _limit_reached()
            await asyncio.Event().wait()
        finally:
            noted.append("child ended")

    @app.task
    async def limited() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                if where == "in the body":
                    await asyncio.Event().wait()
        finally:
            noted.append("group ended")

    with pytest.raises((SoftTimeLimitExceeded, ExceptionGroup)):
        limited.apply().get()
    assert noted == ["child ended", "group ended"]


def test_another_interrupt_stays_a_cancellation(app: Celery) -> None:
    """Also while the thread is still handling a soft limit from before."""
    noted: list[type[BaseException]] = []
    signal.signal(signal.SIGUSR1, _interrupt)

    @app.task
    async def interrupted() -> None:
        try:
            _limit_reached()
            await asyncio.Event().wait()
        except BaseException as error:
            noted.append(type(error))
            raise

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    try:
        raise SoftTimeLimitExceeded
    except SoftTimeLimitExceeded:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert noted == [asyncio.CancelledError] * 2


def test_a_coroutine_may_still_be_cancelled_after_its_limit(app: Celery) -> None:
    """The limit is seen once; what cancels it afterwards is a cancellation."""

    @app.task
    async def limited() -> str:
        try:
            _limit_reached()
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            current = asyncio.current_task()
            assert current is not None
            assert current.cancelling() == 0
            current.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                return type(error).__name__
        return "not cancelled"

    assert limited.apply().get() == "CancelledError"
