"""iterate(), enter() and sync() beyond what the scenario suite promises."""

import asyncio
import contextvars
import ctypes
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import homeloop
from homeloop import LoopRuntime
from homeloop.errors import RuntimeClosedError, WrongThreadError

DEADLINE = 60.0  # seconds; tells a hang from an answer

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Thing:
    """Something whose end can be watched."""


async def numbers(cleaned: list[str] | None = None) -> AsyncIterator[int]:
    try:
        for i in range(3):
            yield i
    finally:
        await asyncio.sleep(0)
        if cleaned is not None:
            cleaned.append("cleaned up")


@asynccontextmanager
async def managed(log: list[str]) -> AsyncIterator[str]:
    log.append("enter")
    try:
        yield "value"
    finally:
        await asyncio.sleep(0)
        log.append("exit")


def test_a_dropped_iteration_is_cleaned_up(runtime: LoopRuntime) -> None:
    """Also when it is collected on the loop's own thread, which must not wait for itself."""
    cleaned: list[str] = []
    kept = [runtime.iterate(numbers, cleaned)]
    assert next(kept[0]) == 0
    kept.clear()
    gc.collect()
    assert cleaned == ["cleaned up"]

    kept = [runtime.iterate(numbers, cleaned)]
    assert next(kept[0]) == 0

    async def drop_here() -> None:
        kept.clear()
        gc.collect()
        while len(cleaned) < 2:  # noqa: ASYNC110 - the clean-up is a task of this loop
            await asyncio.sleep(0)

    runtime.run(drop_here, timeout=DEADLINE)


def test_an_iteration_that_never_began_runs_nothing(runtime: LoopRuntime) -> None:
    """As with any generator."""
    cleaned: list[str] = []
    runtime.iterate(numbers, cleaned).close()
    assert runtime.statistics().finished == 0
    assert cleaned == []


def test_an_exception_thrown_into_an_iteration_cleans_up_first(runtime: LoopRuntime) -> None:
    """It comes out of throw(), and the iteration is over."""
    cleaned: list[str] = []
    iteration = runtime.iterate(numbers, cleaned)
    assert next(iteration) == 0
    original = ValueError("thrown")
    with pytest.raises(ValueError, match="thrown") as caught:
        iteration.throw(original)
    assert caught.value is original
    assert cleaned == ["cleaned up"]
    assert list(iteration) == []


def test_a_failing_clean_up_is_heard_of(runtime: LoopRuntime) -> None:
    """close() raises what the generator's finally raises."""

    async def failing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise LookupError("in the clean-up")

    iteration = runtime.iterate(failing)
    assert next(iteration) == 1
    with pytest.raises(LookupError, match="in the clean-up"):
        iteration.close()


def test_items_may_be_none(runtime: LoopRuntime) -> None:
    """No item is mistaken for the end."""

    async def nothings() -> AsyncIterator[None]:
        yield None
        yield None

    assert list(runtime.iterate(nothings)) == [None, None]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="injects an exception through CPython's API")
def test_an_interrupted_consumer_cancels_the_generator(runtime: LoopRuntime) -> None:
    """What interrupts the wait for an item is raised after the generator's clean-up, and the iteration is over."""

    class InjectedError(Exception):
        pass

    waiting, cleaned, outcome = threading.Event(), [], []

    async def stuck() -> AsyncIterator[int]:
        try:
            yield 1
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    def consumer() -> None:
        iteration = runtime.iterate(stuck)
        try:
            for _ in iteration:
                pass
        except InjectedError:
            outcome.append((list(cleaned), list(iteration)))

    thread = threading.Thread(target=consumer)
    thread.start()
    assert waiting.wait(DEADLINE)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(InjectedError))
    thread.join(DEADLINE)
    assert outcome == [([True], [])]


def test_closing_the_runtime_ends_an_iteration(runtime: LoopRuntime) -> None:
    """The generator is closed with its loop, and its consumer is told at the next step."""
    cleaned: list[str] = []
    iteration = runtime.iterate(numbers, cleaned)
    assert next(iteration) == 0
    runtime.close()
    assert cleaned == ["cleaned up"]
    with pytest.raises(RuntimeClosedError):
        next(iteration)


def test_the_loops_own_thread_is_refused(runtime: LoopRuntime) -> None:
    """There the consumer would wait for itself; nothing is begun, and the error says what was refused."""
    log: list[str] = []

    async def consume_here() -> None:
        with pytest.raises(WrongThreadError, match=r"^iterate\(\) on"):
            next(runtime.iterate(numbers, log))
        with pytest.raises(WrongThreadError, match=r"^enter\(\) on"), runtime.enter(managed(log)):
            pass

    runtime.run(consume_here, timeout=DEADLINE)
    assert runtime.run(asyncio.sleep, 0, 1) == 1
    assert runtime.statistics().in_flight == 0
    assert log == []


def test_a_failing_exit_replaces_the_bodys_exception(runtime: LoopRuntime) -> None:
    """As under ``async with``: it has the body's as its context."""
    original = LookupError("in the exit")

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise original

    with pytest.raises(LookupError) as caught, runtime.enter(failing()):
        raise ValueError("in the body")
    assert caught.value is original
    assert isinstance(original.__context__, ValueError)


def test_a_manager_is_entered_once(runtime: LoopRuntime) -> None:
    """A second time needs another one."""
    log: list[str] = []
    entered = runtime.enter(managed(log))
    with entered:
        pass
    with pytest.raises(RuntimeError, match="entered before"), entered:
        pass
    assert log == ["enter", "exit"]


def test_a_manager_is_left_once_and_only_if_entered(runtime: LoopRuntime) -> None:
    """Anything else is an error at once."""

    class Closed:
        async def __aenter__(self) -> None:
            raise OSError

        async def __aexit__(self, *raised: object) -> None: ...

    log: list[str] = []
    never, failed, left = runtime.enter(managed(log)), runtime.enter(Closed()), runtime.enter(managed(log))
    with left:
        pass
    with pytest.raises(OSError), failed:
        pass
    for each in (never, failed, left):
        with pytest.raises(RuntimeError, match="not entered"):
            each.__exit__(None, None, None)
    assert log == ["enter", "exit"]


def test_a_manager_that_is_dropped_while_entered_is_left(runtime: LoopRuntime) -> None:
    """As Python's own are that are made of generators: an interrupt may strike at the first step of the exit."""
    log: list[str] = []
    left = threading.Event()

    class Manager:
        async def __aenter__(self) -> None:
            log.append("enter")

        async def __aexit__(self, *raised: object) -> None:
            left.set()

    entered = runtime.enter(Manager())
    entered.__enter__()
    del entered
    assert left.wait(DEADLINE)


def test_any_async_iterator_can_be_iterated(runtime: LoopRuntime) -> None:
    """There is nothing to close in one that cannot be closed."""

    class Countdown:
        left = 3

        def __aiter__(self) -> "Countdown":
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(runtime.iterate(Countdown)) == [2, 1, 0]


def test_managers_nest(runtime: LoopRuntime) -> None:
    """Each has a task of its own, and the last one entered is left first."""
    log: list[str] = []
    with runtime.enter(managed(log)), runtime.enter(managed(log)):
        log.append("body")
    assert log == ["enter", "enter", "body", "exit", "exit"]


def test_sync_makes_an_async_function_callable(runtime: LoopRuntime) -> None:
    """Name, documentation, keywords, context and exceptions are those of the function."""

    @runtime.sync
    async def rename(new: str, *, fail: bool = False) -> str:
        """Change the user's name."""
        before = user.get()
        user.set(new)
        if fail:
            raise LookupError(new)
        return before

    def caller() -> list[str]:
        seen = [rename("ada"), user.get()]
        with pytest.raises(LookupError, match="bob"):
            rename(new="bob", fail=True)
        return [*seen, user.get()]

    assert contextvars.copy_context().run(caller) == ["nobody", "ada", "bob"]
    assert (rename.__name__, rename.__doc__) == ("rename", "Change the user's name.")


def test_the_default_runtime_has_them_too() -> None:
    """iterate, enter and sync of the package itself."""
    log: list[str] = []

    @homeloop.sync
    async def add(left: int, right: int) -> int:
        return left + right

    assert list(homeloop.iterate(numbers)) == [0, 1, 2]
    with homeloop.enter(managed(log)) as value:
        assert value == "value"
    assert log == ["enter", "exit"]
    assert add(1, right=2) == 3


def test_nothing_is_retained(runtime: LoopRuntime) -> None:
    """Arguments of an iteration that ended, well or not, are freed without the garbage collector."""

    async def give(thing: Thing, fail: bool) -> AsyncIterator[Thing]:
        yield thing
        if fail:
            raise ValueError(thing)

    def consume(fail: bool) -> "weakref.ref[Thing]":
        thing = Thing()
        try:
            list(runtime.iterate(give, thing, fail))
        except ValueError:
            pass
        return weakref.ref(thing)

    gc.collect()
    gc.disable()
    try:
        freed = [consume(fail=False), consume(fail=True)]
        runtime.run(asyncio.sleep, 0)  # the loop has let go of the last step
        assert [each() for each in freed] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "error", [ValueError, StopIteration, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit]
)
def test_whatever_the_body_raises_comes_out_as_it_is(runtime: LoopRuntime, error: type[BaseException]) -> None:
    """The same object, with no frame of the bridge before the body's own."""
    log: list[str] = []
    original = error()
    with pytest.raises(error) as caught, runtime.enter(managed(log)):
        raise original
    assert caught.value is original
    assert log == ["enter", "exit"]
    frames = [frame.name for frame in traceback.extract_tb(original.__traceback__)]
    assert frames[0] == test_whatever_the_body_raises_comes_out_as_it_is.__name__
