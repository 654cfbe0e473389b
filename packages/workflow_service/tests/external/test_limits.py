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


def test_places_are_free_until_the_limit(run: Run, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in a second go at once, the third waits for the first one's second to be over, and so on."""
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    limit = RateLimit(2, 1.0, clock)

    async def scenario() -> None:
        assert [await limit.wait() for _ in range(5)] == [0, 0, 1, 1, 2]
        clock.now += 10
        assert await limit.wait() == 0

    run(scenario)
    assert slept == [1, 1, 2]


def test_threads_share_the_places(clock: FakeClock) -> None:
    """However many loops ask at the same time, no place is given twice and none is lost."""
    limit = RateLimit(40, 0.01, clock)
    waits: list[float] = []

    async def ask() -> None:
        waits.extend(await asyncio.gather(*(limit.wait() for _ in range(20))))

    threads = [threading.Thread(target=asyncio.run, args=[ask()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(wait == 0 for wait in waits) == 40
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
