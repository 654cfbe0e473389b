"""Rate limit and circuit breaker, on a clock of the test's."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from workflow_service.external import ServiceCallError
from workflow_service.external.limits import CircuitBreaker, RateLimit

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


class FakeClock:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the object under test."""
    return FakeClock()


@pytest.fixture
def slept(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept, by the clock of the test."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def sleep_on_the_clock(delay: float) -> None:
        slept.append(delay)
        clock.now += delay
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep_on_the_clock)
    return slept


def test_places_are_free_until_the_limit(run: Run, clock: FakeClock, slept: list[float]) -> None:
    """Two in a second go at once, the third waits for the first one's second to be over, and so on."""
    limit = RateLimit(2, 1.0, clock)

    async def scenario() -> None:
        for _ in range(5):
            await limit.wait()
        clock.now += 10
        await limit.wait()

    run(scenario)
    assert slept == [1, 1]


def test_those_who_give_up_take_no_place(run: Run, clock: FakeClock) -> None:
    """A hundred that were cancelled while they waited leave the place to the next."""
    limit = RateLimit(1, 60.0, clock)

    async def scenario() -> None:
        await limit.wait()
        impatient = [asyncio.create_task(limit.wait()) for _ in range(100)]
        await asyncio.sleep(0)
        for task in impatient:
            task.cancel()
        await asyncio.gather(*impatient, return_exceptions=True)
        assert all(task.cancelled() for task in impatient)
        clock.now += 60
        async with asyncio.timeout(10):
            await limit.wait()

    run(scenario)


def test_threads_share_the_places(clock: FakeClock) -> None:
    """However many loops ask at the same time, no place is given twice and none is lost."""
    limit = RateLimit(40, 0.01, clock)
    began_at: list[float] = []
    begun = threading.Semaphore(0)

    async def ask_once() -> None:
        await limit.wait()
        began_at.append(clock.now)
        begun.release()

    async def ask() -> None:
        await asyncio.gather(*(ask_once() for _ in range(20)))

    threads = [threading.Thread(target=asyncio.run, args=[ask()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        assert begun.acquire(timeout=30)
    clock.now += 1
    for thread in threads:
        thread.join(30)
    assert sorted(began_at) == [100.0] * 40 + [101.0] * 40
    assert len(limit._free_at) == 40


def test_a_circuit_lets_one_try(clock: FakeClock) -> None:
    """Open after the failures in a row; once the pause is over one call tries, the others still fail at once."""
    breaker = CircuitBreaker(2, 10.0, clock)
    for has_failed in (True, False, True, True):
        breaker.leave(breaker.enter(), has_failed=has_failed)
    assert breaker.is_open
    with pytest.raises(ServiceCallError, match=r"failed 2 times in a row .* again in 10 s") as refused:
        breaker.enter()
    assert (refused.value.code, refused.value.is_transient) == ("circuit-open", True)
    clock.now += 10
    assert breaker.enter() is True
    with pytest.raises(ServiceCallError):
        breaker.enter()
    breaker.leave(True, has_failed=None)  # it was cancelled: nothing was learnt, and another one may try
    assert breaker.enter() is True
    breaker.leave(True, has_failed=True)
    with pytest.raises(ServiceCallError, match="in 10 s"):
        breaker.enter()
    clock.now += 10
    breaker.leave(breaker.enter(), has_failed=False)
    assert not breaker.is_open
    assert breaker.enter() is False
