"""Async generators and context managers from sync code: one task and one context from first to last."""

import asyncio
import contextvars
import gc
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


def test_m01_items_arrive_in_order(runtime: LoopRuntime) -> None:
    """Async generator is iterated from sync code in order."""

    async def count(first: int, last: int) -> AsyncIterator[int]:
        for i in range(first, last):
            await asyncio.sleep(0)
            yield i

    assert list(runtime.iterate(count, 3, 8)) == [3, 4, 5, 6, 7]
    assert list(runtime.iterate(count, 3, 3)) == []


def test_m02_leaving_early_cleans_up(runtime: LoopRuntime) -> None:
    """Early break/close() runs the generator's async finally before close() returns."""
    cleaned: list[asyncio.AbstractEventLoop] = []

    async def count() -> AsyncIterator[int]:
        try:
            for i in range(10):
                yield i
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(asyncio.get_running_loop())

    async def which_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    home = runtime.run(which_loop)
    numbers = runtime.iterate(count)
    assert next(numbers) == 0
    numbers.close()
    assert cleaned == [home]
    numbers.close()
    assert list(numbers) == []

    for number in runtime.iterate(count):
        if number == 2:
            break
    gc.collect()  # where nothing counts references, break alone drops nothing
    assert cleaned == [home, home]


def test_m03_the_generators_exception(runtime: LoopRuntime) -> None:
    """Exception in the generator reaches the consumer; then it is exhausted."""
    original = ValueError("boom")

    async def fail_after_one() -> AsyncIterator[int]:
        yield 1
        raise original

    numbers = runtime.iterate(fail_after_one)
    assert next(numbers) == 1
    with pytest.raises(ValueError, match="boom") as caught:
        next(numbers)
    assert caught.value is original
    assert "fail_after_one" in [frame.name for frame in traceback.extract_tb(original.__traceback__)]
    assert list(numbers) == []


def test_m04_its_own_context_between_steps(runtime: LoopRuntime) -> None:
    """Generator keeps its own context between steps."""

    async def rename() -> AsyncIterator[str]:
        yield user.get()
        token = user.set("generator")
        yield user.get()
        yield user.get()
        user.reset(token)  # refused in any other context than the one that set it
        yield user.get()

    def consumer() -> list[tuple[str, str]]:
        user.set("consumer")
        seen = []
        for inside in runtime.iterate(rename):
            seen.append((inside, user.get()))
            if inside == "generator":
                user.set("consumer, changed")
        return seen

    assert contextvars.copy_context().run(consumer) == [
        ("consumer", "consumer"),
        ("generator", "consumer"),
        ("generator", "consumer, changed"),
        ("consumer", "consumer, changed"),
    ]


def test_m05_scopes_may_span_yields(runtime: LoopRuntime) -> None:
    """asyncio.timeout / cancel scope spanning yields works (same task for every step)."""

    async def under_a_timeout() -> AsyncIterator[object]:
        try:
            async with asyncio.timeout(None) as limit:
                yield asyncio.current_task()
                yield asyncio.current_task()
                limit.reschedule(0)
                await asyncio.Event().wait()
        except TimeoutError:
            yield asyncio.current_task()

    async def under_a_scope() -> AsyncIterator[object]:
        with anyio.CancelScope() as scope:
            yield asyncio.current_task()
            yield asyncio.current_task()
            scope.cancel()
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            yield asyncio.current_task()

    for generator in (under_a_timeout, under_a_scope):
        tasks = list(runtime.iterate(generator))
        assert len(tasks) == 3
        assert len(set(tasks)) == 1


def test_m06_context_manager_value_and_order(runtime: LoopRuntime) -> None:
    """Async context manager: value, order."""
    log: list[str] = []

    @asynccontextmanager
    async def managed() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        log.append("enter")
        try:
            yield "value"
        finally:
            await asyncio.sleep(0.01)
            log.append("exit")

    with runtime.enter(managed()) as value:
        log.append(value)
    assert log == ["enter", "value", "exit"]


def test_m07_it_sees_the_bodys_exception(runtime: LoopRuntime) -> None:
    """Async context manager sees the body's exception and may suppress it."""
    seen: list[object] = []

    class Watching:
        def __init__(self, suppress: bool) -> None:
            self.suppress = suppress

        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, kind: object, error: object, trace: object) -> bool:
            seen.append(error)
            return self.suppress

    original = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught, runtime.enter(Watching(suppress=False)):
        raise original
    assert caught.value is original
    with runtime.enter(Watching(suppress=True)):
        raise original
    with runtime.enter(Watching(suppress=True)):
        pass
    assert seen == [original, original, None]


def test_m08_entered_and_left_in_one_task(runtime: LoopRuntime) -> None:
    """__aenter__ and __aexit__ run in one task (task groups / cancel scopes inside)."""
    finished: list[str] = []

    class Service:
        async def __aenter__(self) -> "Service":
            self.task = asyncio.current_task()
            self.scope = anyio.CancelScope().__enter__()
            self.group = await asyncio.TaskGroup().__aenter__()
            self.stop = asyncio.Event()
            self.group.create_task(self.serve())
            return self

        async def serve(self) -> None:
            await self.stop.wait()
            finished.append("served")

        async def __aexit__(self, *exc: object) -> None:
            assert asyncio.current_task() is self.task
            self.stop.set()
            await self.group.__aexit__(None, None, None)
            self.scope.__exit__(None, None, None)
            finished.append("left")

    with runtime.enter(Service()) as service:
        assert service.task is not None
        assert not service.task.done()
        assert finished == []
    assert finished == ["served", "left"]


def test_m09_a_failing_aenter(runtime: LoopRuntime) -> None:
    """__aenter__ failure propagates, body not entered."""
    original, entered = ConnectionError("the server is away"), []

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        raise original
        yield

    with pytest.raises(ConnectionError) as caught, runtime.enter(failing()):
        entered.append(True)
    assert caught.value is original
    assert entered == []
