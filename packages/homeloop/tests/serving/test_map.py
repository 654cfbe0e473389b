"""A6: batches: order, concurrency, progress, first or all errors, time-outs and cancellation."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Literal

import pytest

import homeloop
from homeloop import Event, add_instrument, map_concurrent
from homeloop.errors import CallTimeoutError
from homeloop.serving import AsyncExecutor

BOUND = 20.0  # seconds; tells a hang from an answer


class Gate:
    """Holds items until so many are inside at the same time, and counts how many were."""

    def __init__(self, together: int) -> None:
        self.together = together
        self.inside = self.most = 0
        self.opened = asyncio.Event()

    async def __call__(self, item: int) -> int:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self.together:
            self.opened.set()
        await self.opened.wait()
        await asyncio.sleep(0)  # those who come after the opening overlap, too
        self.inside -= 1
        return item * item


async def odd_fails(item: int) -> int:
    await asyncio.sleep(0)
    if item % 2:
        raise ValueError(item)
    return item


def run(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a batch on a loop that ends with it, within the bound."""

    async def main() -> Any:
        async with asyncio.timeout(BOUND):
            return await map_concurrent(fn, *args, **options)

    return asyncio.run(main())


def test_a6_results_come_in_the_order_of_the_items() -> None:
    """However the calls end: here the last begun ends first."""
    ended: list[int] = []
    turns: dict[int, asyncio.Event] = {}

    async def backwards(item: int) -> int:
        turns[item] = asyncio.Event()
        if len(turns) == 5:
            turns[4].set()
        await turns[item].wait()
        ended.append(item)
        if item:
            turns[item - 1].set()
        return item * 10

    assert AsyncExecutor.map_async(backwards, range(5), concurrency=5, timeout=BOUND) == [0, 10, 20, 30, 40]
    assert ended == [4, 3, 2, 1, 0]


def test_a6_as_many_at_once_as_allowed_and_no_more() -> None:
    """A hundred items, seven at a time."""
    gate = Gate(7)
    assert run(gate, range(100), concurrency=7) == [item * item for item in range(100)]
    assert gate.most == 7
    assert gate.inside == 0


def test_a6_no_items_and_more_places_than_items() -> None:
    """Nothing to do is done; fewer items than places need no more."""
    assert run(odd_fails, ()) == []
    assert run(Gate(2), iter([3, 4]), concurrency=50) == [9, 16]


def test_a6_progress_counts_every_item() -> None:
    """How many are done and how many there are, failed ones included, never backwards."""
    told: list[tuple[int, int]] = []
    AsyncExecutor.map_async(Gate(1), range(4), concurrency=1, on_progress=lambda *now: told.append(now))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    told.clear()
    with pytest.raises(ExceptionGroup):
        AsyncExecutor.map_async(odd_fails, range(4), errors="all", on_progress=lambda *now: told.append(now))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a6_the_first_error_cancels_the_others_and_comes_alone() -> None:
    """It is the same object, no group; the other calls have cleaned up, those not begun never begin."""
    wrong = LookupError("third")
    state: dict[int, str] = {}

    async def work(item: int) -> None:
        state[item] = "begun"
        try:
            if len(state) == 3:
                raise wrong
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            state[item] = "cleaned up"
            raise

    with pytest.raises(LookupError) as told:
        AsyncExecutor.map_async(work, range(10), concurrency=3, timeout=BOUND)
    assert told.value is wrong
    assert wrong.__context__ is None
    assert state == {0: "cleaned up", 1: "cleaned up", 2: "begun"}


def test_a6_all_errors_come_as_a_group() -> None:
    """Every item is tried; the group has the failures in order, its message their numbers."""
    with pytest.raises(ExceptionGroup, match="3 of 6 items failed: 1, 3, 5") as told:
        AsyncExecutor.map_async(odd_fails, range(6), errors="all", concurrency=2)
    assert [error.args for error in told.value.exceptions] == [(1,), (3,), (5,)]


@pytest.mark.parametrize("errors", ["first", "all"])
def test_a6_a_cancelled_error_of_the_function_is_an_error(errors: Literal["first", "all"]) -> None:
    """One that nobody asked for is a failure of the item, not an end without a word."""

    async def cancelled(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    expected = BaseExceptionGroup if errors == "all" else asyncio.CancelledError
    with pytest.raises(expected):
        run(cancelled, range(3), errors=errors, concurrency=1)


def test_a6_what_progress_raises_ends_the_batch() -> None:
    """As a first error does, also when all errors are asked for."""

    def refuse(done: int, of: int) -> None:
        raise ZeroDivisionError(done)

    for errors in ("first", "all"):
        with pytest.raises(ZeroDivisionError):
            run(Gate(1), range(5), concurrency=1, errors=errors, on_progress=refuse)


def test_a6_a_timeout_cancels_what_runs_and_begins_no_more() -> None:
    """The time is for the whole batch; nothing of it is left on the loop."""
    begun: list[int] = []
    ended: list[int] = []

    async def endless(item: int) -> None:
        begun.append(item)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    with pytest.raises(CallTimeoutError, match=r"endless\(\) did not finish within 2 s"):
        AsyncExecutor.map_async(endless, range(50), concurrency=5, timeout=2)
    assert begun == sorted(ended) == [0, 1, 2, 3, 4]
    assert homeloop.default_runtime().statistics().in_flight == 0


@pytest.mark.parametrize("errors", ["first", "all"])
@pytest.mark.parametrize("how", ["swallows it", "raises another error"])
def test_a6_a_cancelled_batch_begins_nothing_more(errors: Literal["first", "all"], how: str) -> None:
    """Though a call ignores its cancellation, or fails in its clean-up: the batch is over."""
    begun: list[int] = []
    both = asyncio.Event()

    async def stubborn(item: int) -> None:
        begun.append(item)
        if item == 1:
            both.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "raises another error":
                raise ValueError(item) from None

    async def main() -> None:
        batch = asyncio.create_task(map_concurrent(stubborn, range(9), concurrency=2, errors=errors))
        await both.wait()
        batch.cancel()
        with pytest.raises((asyncio.CancelledError, ValueError)):
            await batch

    asyncio.run(asyncio.wait_for(main(), BOUND))
    assert begun == [0, 1]


def test_a6_a_failing_clean_up_is_told() -> None:
    """The first error is raised; what another call raises when it is cancelled for it is an event."""
    events: list[str] = []

    class Ear:
        def notify(self, event: Event) -> None:
            events.append(str(event))

    async def work(item: int) -> None:
        if item:
            raise LookupError(item)
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    remove = add_instrument(Ear())
    try:
        with pytest.raises(LookupError):
            run(work, range(2))
    finally:
        remove()
    assert any("work()" in event and "ZeroDivisionError" in event for event in events)


def test_a6_options_are_checked() -> None:
    """Nothing is called for options that mean nothing."""
    for error, options in (
        (TypeError, {"concurrency": "3"}),
        (ValueError, {"concurrency": 0}),
        (ValueError, {"errors": "some"}),
        (TypeError, {"on_progress": asyncio.sleep}),
        (TypeError, {"on_progress": "print"}),
    ):
        with pytest.raises(error):
            run(odd_fails, [1], **options)
    with pytest.raises(TypeError, match="needs an async function"):
        run(3, [1])  # type: ignore[arg-type]


def test_a6_items_are_looked_through_by_the_caller() -> None:
    """A generator of items runs in the calling thread, where its own resources are."""
    seen: list[int] = []

    def items() -> Any:
        seen.append(threading.get_ident())
        yield 2

    assert AsyncExecutor.map_async(odd_fails, items()) == [2]
    assert seen == [threading.get_ident()]
