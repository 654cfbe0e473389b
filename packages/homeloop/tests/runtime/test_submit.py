"""submit(): start now, look at the future later."""

import asyncio
import concurrent.futures
import contextvars
import threading

import pytest

from homeloop import LoopRuntime
from homeloop.errors import RuntimeClosedError

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def identity(thing: object) -> object:
    return thing


def test_results_and_exceptions_arrive_in_the_future(runtime: LoopRuntime) -> None:
    """The future behaves like any of concurrent.futures."""

    async def fail() -> None:
        raise LookupError("boom")

    good, bad = runtime.submit(identity, 1), runtime.submit(fail)
    done, _ = concurrent.futures.wait((good, bad), timeout=10)
    assert done == {good, bad}
    assert good.result() == 1
    with pytest.raises(LookupError, match="boom"):
        bad.result()


def test_context_goes_in_and_stays_in(runtime: LoopRuntime) -> None:
    """Nobody waits, so nothing is changed behind the caller's back."""

    async def rename() -> str:
        before = name.get()
        name.set("changed inside")
        return before

    def caller() -> tuple[str, str]:
        name.set("caller")
        return runtime.submit(rename).result(10), name.get()

    assert contextvars.copy_context().run(caller) == ("caller", "caller")


def test_cancelling_the_future_cancels_the_coroutine(runtime: LoopRuntime) -> None:
    """Also after it has begun; waiters see a finished future."""
    started, cleaned = threading.Event(), threading.Event()

    async def wait_for_ever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    future = runtime.submit(wait_for_ever)
    assert started.wait(10)
    assert future.cancel()
    assert future.cancel()
    assert concurrent.futures.wait((future,), timeout=10).done == {future}
    assert future.cancelled()
    assert cleaned.wait(10)


def test_what_is_cancelled_before_it_starts_never_starts(runtime: LoopRuntime) -> None:
    """A queued call that nobody wants is not begun."""
    gate, ran = threading.Event(), []

    async def block() -> None:
        gate.wait(10)

    async def note() -> None:
        ran.append(True)

    blocking = runtime.submit(block)
    queued = runtime.submit(note)
    assert queued.cancel()
    gate.set()
    blocking.result(10)
    runtime.run(identity, None)
    assert ran == []


def test_a_finished_future_cannot_be_cancelled(runtime: LoopRuntime) -> None:
    """cancel() says whether it came in time."""
    future = runtime.submit(identity, 1)
    assert future.result(10) == 1
    assert not future.cancel()


def test_a_coroutine_that_cancels_itself_cancels_its_future(runtime: LoopRuntime) -> None:
    """CancelledError means cancelled, not failed."""

    async def give_up() -> None:
        raise asyncio.CancelledError

    future = runtime.submit(give_up)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    assert future.cancelled()


def test_a_done_callback_may_cancel_again(runtime: LoopRuntime) -> None:
    """cancel() is re-entrant."""
    future = runtime.submit(asyncio.Event().wait)
    future.add_done_callback(lambda done: done.cancel())
    assert future.cancel()


def test_a_closed_runtime_refuses(runtime: LoopRuntime) -> None:
    """No future is made that nobody would ever resolve."""
    runtime.close()
    with pytest.raises(RuntimeClosedError):
        runtime.submit(identity, 1)
