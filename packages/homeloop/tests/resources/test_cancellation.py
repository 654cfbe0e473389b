"""Whoever is cancelled, and wherever: nothing is lost, nothing is closed twice, the next one is served."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime, resource_scope

STEPS = 24
"""More turns of the loop than any of the scenarios below takes: the last cancellations come too late."""


class Pool:
    """A resource whose opening and closing take turns of the loop; it counts what is open."""

    open_now = 0
    closings = 0

    @classmethod
    async def make(cls, _: object = None) -> "Pool":
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cls.open_now += 1
        return cls()

    async def aclose(self) -> None:
        type(self).closings += 1
        await asyncio.sleep(0)
        type(self).open_now -= 1


Scenario = Callable[[Any], Coroutine[Any, Any, object]]


async def get(local: Any) -> None:
    await local.get()


async def lease(local: Any) -> None:
    async with local():
        await asyncio.sleep(0)


async def open_and_close(local: Any) -> None:
    await local.get()
    await local.aclose()


async def in_a_scope(local: Any) -> None:
    async with resource_scope():
        await local.get()


async def lease_in_a_scope(local: Any) -> None:
    async with resource_scope(), local():
        await asyncio.sleep(0)


SCENARIOS = (get, lease, open_and_close, in_a_scope, lease_in_a_scope)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_cancelled_at_every_turn(runtime: LoopRuntime, scenario: Scenario) -> None:
    """The next user is served, no lease and no waiter stays counted, everything opened is closed once."""

    class Mine(Pool):
        pass

    async def cancelled_after(turns: int) -> bool:
        local = LoopLocal(Mine.make)
        task = asyncio.create_task(scenario(local))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_cancelled = task.cancel()
        await asyncio.wait((task,))
        async with local() as pool:
            assert isinstance(pool, Mine)
        await local.aclose()
        for _ in range(STEPS):
            await asyncio.sleep(0)
        counts = local.statistics()
        assert (counts.in_use, counts.waiting, counts.live, counts.instances) == (0, 0, 0, ())
        assert counts.opened == counts.closed
        assert Mine.open_now == 0
        return was_cancelled

    async def main() -> list[bool]:
        return [await cancelled_after(turns) for turns in range(STEPS)]

    were_cancelled = runtime.run(main)
    assert were_cancelled[0]
    assert not were_cancelled[-1]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_all_tasks_cancelled_at_every_turn(scenario: Scenario) -> None:
    """Also the opening and the closing themselves, at their first step too: what came to be open is closed."""

    class Mine(Pool):
        pass

    async def cancelled_after(local: "LoopLocal[Pool]", turns: int) -> None:
        task = asyncio.create_task(scenario(local))
        for _ in range(turns):
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        if others:
            await asyncio.wait(others)
        assert task.done()
        async with local() as pool:
            assert isinstance(pool, Mine)

    for turns in range(STEPS):
        local = LoopLocal(Mine.make)
        asyncio.run(cancelled_after(local, turns))
        counts = local.statistics()
        assert (counts.in_use, counts.waiting, counts.live, counts.instances) == (0, 0, 0, ()), turns
        assert counts.opened == counts.closed == Mine.closings, turns
        Mine.closings = 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_loop_that_ends_at_every_turn(scenario: Scenario) -> None:
    """asyncio.run() returns while it is at work: what came to be open is closed once, before the loop is."""

    class Mine(Pool):
        pass

    async def main(local: "LoopLocal[Pool]", turns: int) -> object:
        task = asyncio.create_task(scenario(local))
        for _ in range(turns):
            await asyncio.sleep(0)
        return task

    for turns in range(STEPS):
        local = LoopLocal(Mine.make)
        asyncio.run(main(local, turns))
        counts = local.statistics()
        assert (counts.in_use, counts.waiting, counts.live, counts.instances) == (0, 0, 0, ()), turns
        assert counts.opened == counts.closed == Mine.closings, turns
        Mine.closings = 0


def test_a_storm_of_users_keys_evictions_and_cancellations(runtime: LoopRuntime) -> None:
    """Nobody who holds a lease ever sees it closed, and in the end the counts add up."""

    class Mine:
        live = 0

        def __init__(self, key: int) -> None:
            self.key, self.closed = key, False
            type(self).live += 1

        async def aclose(self) -> None:
            await asyncio.sleep(0)
            assert not self.closed
            self.closed = True
            type(self).live -= 1

    async def make(key: int) -> Mine:
        await asyncio.sleep(0)
        if key % 7 == 6:
            raise ConnectionError(key)
        return Mine(key)

    pools = KeyedLoopLocal(make, max_items=3, max_idle=0.001)

    async def use(number: int) -> int:
        key = number % 20
        try:
            async with pools(key) as pool:
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                    assert not pool.closed
                assert pool.key == key
        except ConnectionError:
            assert key % 7 == 6
        return key

    async def main() -> list[object]:
        tasks = [asyncio.create_task(use(number)) for number in range(600)]
        for number, task in enumerate(tasks):
            if number % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()
            if number % 50 == 0:
                await pools.aclose(number % 20)
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = runtime.run(main)
    assert [error for error in outcomes if isinstance(error, Exception)] == []
    assert sum(isinstance(error, int) for error in outcomes) >= 400
    pools.close()
    counts = pools.statistics()
    assert (counts.in_use, counts.waiting, counts.live, counts.instances, Mine.live) == (0, 0, 0, (), 0)
    assert counts.misses == counts.opened + counts.failed
    assert counts.evicted <= counts.closed == counts.opened
