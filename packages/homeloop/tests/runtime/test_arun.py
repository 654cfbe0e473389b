"""arun(): a coroutine on any loop hops to the home loop and back."""

import asyncio
import contextvars
import threading

import pytest

from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def where() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_it_runs_on_the_home_loop_and_the_callers_loop_goes_on(runtime: LoopRuntime) -> None:
    """While the function waits for the caller's loop, that loop serves it: nothing is blocked."""
    home = runtime.run(where)

    async def caller() -> asyncio.AbstractEventLoop:
        loop, event = asyncio.get_running_loop(), threading.Event()

        async def remote() -> asyncio.AbstractEventLoop:
            loop.call_soon_threadsafe(event.set)
            await asyncio.to_thread(event.wait, 10)
            return asyncio.get_running_loop()

        assert loop is not home
        return await runtime.arun(remote)

    assert asyncio.run(caller()) is home


def test_it_works_on_its_own_loop(runtime: LoopRuntime) -> None:
    """A coroutine that lives on the home loop may call it too."""

    async def caller() -> bool:
        return await runtime.arun(where) is asyncio.get_running_loop()

    assert runtime.run(caller)


def test_context_changes_come_back(runtime: LoopRuntime) -> None:
    """It is a call, as run() is."""

    async def rename() -> str:
        before = name.get()
        name.set("changed inside")
        return before

    async def caller() -> tuple[str, str]:
        name.set("caller")
        return await runtime.arun(rename), name.get()

    assert asyncio.run(caller()) == ("caller", "changed inside")


def test_cancelling_the_caller_cancels_the_function_and_waits_for_its_clean_up(runtime: LoopRuntime) -> None:
    """The caller goes on only when the clean-up has run, even if it is cancelled twice."""
    started, cleaned = threading.Event(), []

    async def remote() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def caller() -> None:
        task = asyncio.create_task(runtime.arun(remote))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [True]

    asyncio.run(caller())


def test_a_timeout_cancels_and_cleans_up(runtime: LoopRuntime) -> None:
    """As run(), and asyncio's own timeouts around it are not confused by it."""

    async def caller() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(CallTimeoutError, match="its clean-up has run"):
                await runtime.arun(asyncio.Event().wait, timeout=0.05)

    asyncio.run(caller())


def test_what_ignores_its_cancellation_is_abandoned() -> None:
    """The caller's loop gets its task back after the grace."""
    release = threading.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await asyncio.to_thread(release.wait)
            except asyncio.CancelledError:
                continue

    async def caller(runtime: LoopRuntime) -> None:
        with pytest.raises(CallTimeoutError) as caught:
            await runtime.arun(stubborn, timeout=0.05)
        assert caught.value.abandoned
        task = asyncio.create_task(runtime.arun(stubborn))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with LoopRuntime(name="stubborn", grace=0.1) as runtime:
        try:
            asyncio.run(caller(runtime))
        finally:
            release.set()


def test_exceptions_come_through(runtime: LoopRuntime) -> None:
    """The same object, raised in the caller's task."""
    original = ValueError("boom")

    async def fail() -> None:
        raise original

    async def caller() -> None:
        with pytest.raises(ValueError, match="boom") as caught:
            await runtime.arun(fail)
        assert caught.value is original

    asyncio.run(caller())
