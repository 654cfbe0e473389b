"""Calls that nobody waits for any more: counted, named, reported; and what a time-out says of each state."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

import homeloop
from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError

DEADLINE = 60.0  # seconds; tells a hang from an answer


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What stubborn and blocking calls wait for."""
    event = threading.Event()
    yield event
    event.set()


async def stubborn(release: threading.Event) -> None:
    while not release.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


async def block(begun: threading.Event, release: threading.Event) -> None:
    begun.set()
    release.wait(DEADLINE)


def test_they_are_listed_from_the_moment_of_the_error_to_their_end(release: threading.Event) -> None:
    """By name and place; the total never falls."""
    with LoopRuntime(name="patient", grace=0.5) as runtime:  # a starved loop must not count as a blocked one
        for number in range(1, 4):
            with pytest.raises(CallTimeoutError, match="abandoned"):
                runtime.run(stubborn, release, timeout=0.2)
            statistics = runtime.statistics()
            assert (statistics.abandoned, statistics.abandoned_total) == (number, number)
        ages = [each.since for each in statistics.abandoned_calls]
        assert ages == sorted(ages)
        assert {each.what for each in statistics.abandoned_calls} == {f"{__name__}.stubborn()"}
        assert all("in stubborn" in each.waiting_at[0] for each in statistics.abandoned_calls)
        release.set()
        while runtime.statistics().in_flight:
            runtime.run(asyncio.sleep, 0)
        statistics = runtime.statistics()
        assert (statistics.abandoned, statistics.abandoned_calls, statistics.abandoned_total) == (0, (), 3)
    assert runtime.statistics().abandoned_total == 3


def test_a_deep_stack_that_blocks_the_loop_is_named_at_both_ends(release: threading.Event) -> None:
    """Where the user's code begins and where it stands; of what is in between, and of what runs it, nothing."""
    begun = threading.Event()

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            begun.set()
            release.wait(DEADLINE)

    async def block_deeply() -> None:
        dive(20)

    with LoopRuntime(name="blocked", grace=0.02) as runtime:
        runtime.submit(block_deeply)
        assert begun.wait(DEADLINE)
        with pytest.raises(CallTimeoutError) as e:
            runtime.run(asyncio.sleep, 0, timeout=0.02)
        first, *_, last = e.value.blocked_at
        assert "in test_a_deep_stack" in first
        assert first.endswith("block_deeply")
        assert "in Condition.wait" in last
        assert "18 more" in e.value.blocked_at
        release.set()
        runtime.run(asyncio.sleep, 0)


def test_calls_of_a_blocked_loop_are_listed_at_once(release: threading.Event) -> None:
    """Though the loop cannot take note of anything."""
    with LoopRuntime(name="blocked", grace=0.02) as runtime:
        with pytest.raises(CallTimeoutError, match="abandoned"):
            runtime.run(block, threading.Event(), release, timeout=0.2)
        [abandoned] = runtime.statistics().abandoned_calls
        assert (abandoned.what, abandoned.waiting_at) == (f"{__name__}.block()", ())
        release.set()
        runtime.run(asyncio.sleep, 0)
        assert runtime.statistics().abandoned == 0


def test_those_left_at_close_are_reported_by_name(release: threading.Event) -> None:
    """Whether they ignore their cancellation or block their loop."""
    left: list[str] = []

    class Watch:
        def notify(self, event: homeloop.Event) -> None:
            if type(event).__name__ == "TaskLeft":
                left.append(event.what)  # type: ignore[attr-defined]

    remove = homeloop.add_instrument(Watch())
    ignoring, blocked = (LoopRuntime(name=name, grace=0.02) for name in ("ignoring", "blocked"))
    try:
        ignoring.start()
        blocked.start()
        with pytest.raises(CallTimeoutError):
            ignoring.run(stubborn, release, timeout=0.2)
        ignoring.close(0.02)
        with pytest.raises(CallTimeoutError):
            blocked.run(block, threading.Event(), release, timeout=0.2)
        blocked.close(0.02)
    finally:
        remove()
    assert sorted(left) == [f"{__name__}.block()", f"{__name__}.stubborn()"]


def test_a_call_that_a_blocked_loop_did_not_take_never_began(release: threading.Event) -> None:
    """The error says so, and what blocks the loop; nothing is abandoned, and it never begins later."""
    begun = threading.Event()
    ran: list[str] = []

    async def note() -> None:
        ran.append("note")

    with LoopRuntime(name="blocked") as runtime:
        runtime.submit(block, begun, release)
        assert begun.wait(DEADLINE)
        with pytest.raises(
            CallTimeoutError, match="it never began: it was not taken in time by the loop, which is"
        ) as e:
            runtime.run(note, timeout=0.02)
        assert not e.value.abandoned
        assert any("in block" in place for place in e.value.blocked_at)
        assert "clean-up" not in str(e.value)
        release.set()
        runtime.run(asyncio.sleep, 0)
    assert ran == []


def test_a_call_that_waited_for_its_place_never_began(release: threading.Event) -> None:
    """run and arun tell what it waited for, statistics count it while it waits."""
    with LoopRuntime(name="full", max_in_flight=1) as runtime:
        holding = runtime.submit(asyncio.to_thread, release.wait, DEADLINE)
        waiting = runtime.submit(asyncio.sleep, 0)
        with pytest.raises(CallTimeoutError, match="it never began: it waited for one of the 1 places"):
            runtime.run(asyncio.sleep, 0, timeout=0.02)
        with pytest.raises(CallTimeoutError, match="it never began: it waited for one of the 1 places"):
            asyncio.run(runtime.arun(asyncio.sleep, 0, timeout=0.02))
        assert (runtime.statistics().waiting, runtime.statistics().in_flight) == (1, 1)
        release.set()
        for future in (holding, waiting):
            future.result(DEADLINE)
        assert runtime.statistics().waiting == 0
