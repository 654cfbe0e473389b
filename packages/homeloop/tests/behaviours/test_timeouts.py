"""Time-outs end a call, and say the truth about what became of it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError

DEADLINE = 60.0  # seconds; tells a hang from an answer
PROMPT = 15.0  # seconds; far below the deadline, far above what a loaded machine needs


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def impatient(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[LoopRuntime]:
    """A runtime that gives a cancelled call a tenth of a second to end."""
    with LoopRuntime(name="impatient", loop_factory=loop_factory, grace=0.1) as opened:
        yield opened


def test_g01_a_timeout_raises_timeout_error(runtime: LoopRuntime) -> None:
    """Timeout raises builtin TimeoutError promptly."""
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        runtime.run(wait_for_ever, timeout=0.05)
    assert time.monotonic() - started < PROMPT


def test_g02_clean_up_has_finished(runtime: LoopRuntime) -> None:
    """Async cleanup has FINISHED when run() raises TimeoutError."""
    steps: list[str] = []

    async def wait() -> None:
        try:
            await wait_for_ever()
        finally:
            for step in ("first", "second"):
                await asyncio.sleep(0.01)
                steps.append(step)

    with pytest.raises(CallTimeoutError) as caught:
        runtime.run(wait, timeout=0.05)
    assert steps == ["first", "second"]
    assert not caught.value.abandoned
    assert "its clean-up has run" in str(caught.value)


def test_g03_it_is_not_running_any_more(runtime: LoopRuntime) -> None:
    """After a timeout the coroutine is not running any more."""
    tasks: list[asyncio.Task[object] | None] = []

    async def spin() -> None:
        tasks.append(asyncio.current_task())
        while True:  # noqa: ASYNC110 - it waits for nothing, it is just never suspended for long
            await asyncio.sleep(0)

    async def others() -> int:
        return len(asyncio.all_tasks()) - 1

    with pytest.raises(TimeoutError):
        runtime.run(spin, timeout=0.05)
    assert runtime.run(others) == 0
    assert [task is not None and task.done() for task in tasks] == [True]
    assert runtime.statistics().in_flight == 0


def test_g04_a_generous_timeout_costs_nothing(runtime: LoopRuntime) -> None:
    """Generous timeout: value returned, no delay."""
    started = time.monotonic()
    assert runtime.run(identity, 1, timeout=DEADLINE) == 1
    assert time.monotonic() - started < PROMPT


def test_g05_zero_means_now(runtime: LoopRuntime) -> None:
    """timeout=0 means 'now', not 'for ever'."""
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        runtime.run(wait_for_ever, timeout=0)
    assert time.monotonic() - started < PROMPT


def test_g06_short_timeouts_off_the_main_thread(runtime: LoopRuntime) -> None:
    """Sub-second timeouts are honoured from a non-main thread."""
    for timeout in (0.05, 0.7):  # below and above the pause between two looks for injected exceptions
        with ThreadPoolExecutor(1) as thread:
            call = thread.submit(runtime.run, wait_for_ever, timeout=timeout)
            error = call.exception(PROMPT)
        assert isinstance(error, CallTimeoutError)
        assert error.timeout == timeout


def test_g07_swallowed_cancellation(impatient: LoopRuntime) -> None:
    """Coroutine that swallows cancellation: run() still returns within a bounded grace."""
    release, cancellations = threading.Event(), []

    async def stubborn() -> None:
        waiting = asyncio.ensure_future(asyncio.to_thread(release.wait, DEADLINE))
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError as error:
                cancellations.append(error)

    started = time.monotonic()
    try:
        with pytest.raises(CallTimeoutError, match="abandoned and may still be running") as caught:
            impatient.run(stubborn, timeout=0.05)
        assert time.monotonic() - started < PROMPT
        assert caught.value.abandoned
        impatient.run(identity, None)
        assert impatient.statistics().abandoned == 1
        assert len(cancellations) == 1
    finally:
        release.set()


def test_g08_a_blocked_loop(runtime: LoopRuntime) -> None:
    """Coroutine that blocks the loop (time.sleep): run() raises TimeoutError on time."""
    release = threading.Event()

    async def block() -> None:
        release.wait(DEADLINE)

    started = time.monotonic()
    try:
        with pytest.raises(CallTimeoutError, match="the loop is blocked at") as caught:
            runtime.run(block, timeout=0.05)
        assert time.monotonic() - started < PROMPT
    finally:
        release.set()
    assert caught.value.abandoned
    assert any("test_g08" in place and place.endswith("block") for place in caught.value.blocked_at)


def test_g09_an_inner_timeout_is_the_coroutines_own(runtime: LoopRuntime) -> None:
    """An inner asyncio.timeout handled by the coroutine is not reported as outer timeout."""

    async def have_a_plan_b() -> str:
        try:
            async with asyncio.timeout(0.01):
                await wait_for_ever()
        except TimeoutError:
            return "plan b"
        raise AssertionError

    assert runtime.run(have_a_plan_b, timeout=DEADLINE) == "plan b"


def test_g10_usable_after_a_timeout(runtime: LoopRuntime) -> None:
    """Bridge is usable right after a timeout."""
    for i in range(5):
        with pytest.raises(TimeoutError):
            runtime.run(wait_for_ever, timeout=0.01)
        assert runtime.run(identity, i, timeout=DEADLINE) == i


def test_g11_the_error_tells_where_it_was_stuck(runtime: LoopRuntime) -> None:
    """TimeoutError tells where the coroutine was stuck (frame in traceback/notes/cause)."""

    async def load_the_page() -> None:
        await wait_for_ever()

    with pytest.raises(CallTimeoutError, match=r"it was waiting at .*load_the_page > .*wait_for_ever") as caught:
        runtime.run(load_the_page, timeout=0.05)
    places = [place.rpartition(".")[2].rpartition(" ")[2] for place in caught.value.waiting_at]
    assert places == ["load_the_page", "wait_for_ever", "wait"]
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
