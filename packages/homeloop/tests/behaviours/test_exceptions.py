"""What a coroutine raises reaches its caller as it is, whatever it is, and the runtime serves on."""

import asyncio
import gc
import traceback
import weakref
from collections.abc import Iterator

import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer


class Thing:
    """Something with an identity, whose end can be watched."""


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


async def fail_with(error: BaseException, cause: BaseException | None = None) -> None:
    await asyncio.sleep(0)
    raise error from cause


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only reference counts free objects during the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_b01_the_same_exception_object(runtime: LoopRuntime) -> None:
    """Same exception object reaches the caller."""
    original = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        runtime.run(fail_with, original)
    assert caught.value is original


def test_b02_the_traceback_shows_both_sides(runtime: LoopRuntime) -> None:
    """Traceback shows the coroutine's frames AND the caller's frame."""

    async def outer() -> None:
        await fail_with(ValueError("boom"))

    with pytest.raises(ValueError, match="boom") as caught:
        runtime.run(outer)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[0] == test_b02_the_traceback_shows_both_sides.__name__
    assert frames[-2:] == ["outer", "fail_with"]
    assert "drive" not in frames, "the bridge's own task shows"


def test_b03_the_cause_is_kept(runtime: LoopRuntime) -> None:
    """__cause__ is preserved and not replaced by the bridge."""
    cause = KeyError("cause")
    with pytest.raises(ValueError, match="boom") as caught:
        runtime.run(fail_with, ValueError("boom"), cause)
    assert caught.value.__cause__ is cause
    assert cause.__cause__ is None
    assert cause.__context__ is None


def test_b04_exception_groups_arrive_intact(runtime: LoopRuntime) -> None:
    """ExceptionGroup from a TaskGroup is delivered intact."""
    first, second = ValueError("first"), KeyError("second")

    async def fail_twice() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_with(first))
            group.create_task(fail_with(second))

    with pytest.raises(ExceptionGroup) as caught:
        runtime.run(fail_twice)
    assert caught.value.exceptions == (first, second)


def test_b05_own_timeout_error_is_not_ours(runtime: LoopRuntime) -> None:
    """User's own TimeoutError is not mistaken for a bridge timeout."""
    own = TimeoutError("mine")
    for timeout in (None, DEADLINE):
        with pytest.raises(TimeoutError) as caught:
            runtime.run(fail_with, own, timeout=timeout)
        assert caught.value is own


def test_b06_own_runtime_error_is_not_rewritten(runtime: LoopRuntime) -> None:
    """User's RuntimeError is not swallowed/rewritten; coroutine runs once."""
    own = RuntimeError("This event loop is already running")
    runs: list[int] = []

    async def fail() -> None:
        runs.append(1)
        raise own

    with pytest.raises(RuntimeError) as caught:
        runtime.run(fail)
    assert caught.value is own
    assert runs == [1]


def test_b07_stop_iteration_is_a_runtime_error(runtime: LoopRuntime) -> None:
    """StopIteration inside the coroutine -> RuntimeError, no hang."""
    with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
        runtime.run(fail_with, StopIteration(1), timeout=DEADLINE)


def test_b08_cancelled_error_reaches_the_caller(runtime: LoopRuntime) -> None:
    """CancelledError raised by the coroutine reaches the caller; never returns None."""
    original = asyncio.CancelledError("by hand")
    with pytest.raises(asyncio.CancelledError) as caught:
        runtime.run(fail_with, original)
    assert caught.value is original


def test_b09_a_task_that_cancels_itself(runtime: LoopRuntime) -> None:
    """A coroutine cancelling its own task -> CancelledError, bridge usable."""

    async def cancel_myself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        runtime.run(cancel_myself, timeout=DEADLINE)
    assert runtime.run(identity, 1) == 1


def _survives(runtime: LoopRuntime, error: BaseException) -> None:
    loop = runtime.run(_which_loop)
    with pytest.raises(type(error)) as caught:
        runtime.run(fail_with, error, timeout=DEADLINE)
    assert caught.value is error
    assert runtime.run(_which_loop, timeout=DEADLINE) is loop


async def _which_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_b10_system_exit(runtime: LoopRuntime) -> None:
    """SystemExit in the coroutine reaches the caller; bridge survives."""
    _survives(runtime, SystemExit(3))


def test_b11_keyboard_interrupt(runtime: LoopRuntime) -> None:
    """KeyboardInterrupt in the coroutine reaches the caller; bridge survives."""
    _survives(runtime, KeyboardInterrupt())


def test_b12_base_exception(runtime: LoopRuntime) -> None:
    """A custom BaseException reaches the caller; bridge survives."""

    class StopEverything(BaseException):
        pass

    _survives(runtime, StopEverything())


@pytest.mark.usefixtures("no_collector")
def test_b13_failures_leave_no_cycle(runtime: LoopRuntime) -> None:
    """Failed call leaves no reference cycle (args freed without the GC)."""

    async def fail(thing: Thing) -> None:
        raise ValueError(thing)

    def call() -> "weakref.ref[Thing]":
        thing = Thing()
        try:
            runtime.run(fail, thing)
        except ValueError:
            pass
        return weakref.ref(thing)

    freed = call()
    runtime.run(identity, None)  # the loop has let go of the call before it takes the next one
    assert freed() is None


@pytest.mark.usefixtures("no_collector")
def test_b14_nothing_is_retained(runtime: LoopRuntime) -> None:
    """Results and arguments are not retained after the call."""

    async def make(argument: Thing) -> Thing:
        await asyncio.sleep(0)
        return Thing()

    def call() -> "list[weakref.ref[Thing]]":
        argument = Thing()
        return [weakref.ref(argument), weakref.ref(runtime.run(make, argument))]

    freed = call()
    runtime.run(identity, None)  # the loop has let go of the call before it takes the next one
    assert [each() for each in freed] == [None, None]


def test_b15_failures_make_no_noise(scenario) -> None:
    """Failing and cancelled calls leave no 'never retrieved/awaited' noise."""
    printed = scenario(
        """
# What a clean-up raised that nobody waits for is reported in homeloop's own log, on purpose, if it had begun.
import logging; logging.getLogger("homeloop").addHandler(logging.NullHandler())
async def fail(): raise ValueError("boom")
async def fail_later():
    try: await asyncio.Event().wait()
    finally: raise LookupError("in the clean-up")

outcomes = []
def outcome(call, *args, **options):
    try: call(*args, **options)
    except BaseException as error: outcomes.append(type(error).__name__)

outcome(homeloop.run, fail)
outcome(homeloop.run, asyncio.Event().wait, timeout=0)
outcome(homeloop.run, fail_later, timeout=0.05)
outcome(homeloop.submit(fail).result)
homeloop.submit(fail)                         # nobody looks at it
future = homeloop.submit(asyncio.Event().wait)
future.cancel()
outcome(future.result)
homeloop.submit(fail_later).cancel()
outcome(asyncio.run, homeloop.arun(fail))
homeloop.run(identity, None)
gc.collect()
homeloop.default_runtime().close()
gc.collect()
print(outcomes)
"""
    )
    assert printed == [
        "['ValueError', 'CallTimeoutError', 'LookupError', 'ValueError', 'CancelledError', 'ValueError']"
    ]
