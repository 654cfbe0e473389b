"""submit(): start now, look at the future later."""

import asyncio
import concurrent.futures

import pytest

from homeloop import LoopRuntime


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
