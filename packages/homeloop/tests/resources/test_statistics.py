"""statistics(): what happened to a resource, and what there is of it on which loop."""

import asyncio
import itertools
import pickle
import threading

import pytest

from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime, ResourceStatistics

BOUND = 10.0  # seconds


async def turns(number: int = 10) -> None:
    """Let the others go on."""
    for _ in range(number):
        await asyncio.sleep(0)


def test_every_asking_is_a_hit_or_a_miss(runtime: LoopRuntime) -> None:
    """A miss begins an opening; a hit finds it open or opening. Closing and failing lose no count."""
    attempts: list[int] = []

    async def make() -> object:
        await turns(1)
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return object()

    local = LoopLocal(make)

    async def main() -> None:
        await asyncio.gather(*(local.get() for _ in range(3)), return_exceptions=True)
        await local.get()
        async with local():
            await local.warm()
        await local.aclose()
        await local.get()

    runtime.run(main)
    counts = local.statistics()
    assert (counts.misses, counts.hits) == (3, 4)
    assert (counts.opened, counts.failed, counts.closed, counts.live) == (2, 1, 1, 1)


def test_waiting_and_leases_are_counted_while_they_last(runtime: LoopRuntime) -> None:
    """Before the opening ends three wait; afterwards two hold it."""
    gate = asyncio.Event()

    async def make() -> object:
        await gate.wait()
        return object()

    local = LoopLocal(make)

    async def main() -> None:
        done = asyncio.Event()

        async def lease() -> None:
            async with local():
                await done.wait()

        users = [asyncio.create_task(each) for each in (lease(), lease(), local.get())]
        await turns()
        counts = local.statistics()
        assert (counts.waiting, counts.in_use, counts.live) == (3, 0, 0)
        (instance,) = counts.instances
        assert (instance.is_open, instance.leases) == (False, 0)
        gate.set()
        await turns()
        counts = local.statistics()
        assert (counts.waiting, counts.in_use, counts.live) == (0, 2, 1)
        (instance,) = counts.instances
        assert (instance.is_open, instance.leases) == (True, 2)
        closing = asyncio.create_task(local.aclose())
        await turns()
        assert not local.statistics().instances[0].is_open  # it waits for its leases, and is handed out no more
        done.set()
        await asyncio.gather(*users, closing)

    runtime.run(main)
    assert local.statistics().instances == ()


def test_instances_are_listed_with_their_loops_oldest_first(runtime: LoopRuntime) -> None:
    """Each with the loop's name and thread, and how long it has been open."""
    keyed = KeyedLoopLocal(lambda key: object())

    async def get() -> None:
        await keyed.get("a")

    with LoopRuntime(name="other") as other:
        runtime.run(get)
        other.run(get)
        first, second = keyed.statistics().instances
        assert first.home == runtime.statistics().home
        assert second.home == other.statistics().home
        assert first.age >= second.age >= 0.0
        later = keyed.statistics().instances
        assert later[0].age >= first.age


def test_statistics_are_plain_data(runtime: LoopRuntime) -> None:
    """They may leave the process, and nothing can be changed in them."""
    local = LoopLocal(object)
    runtime.run(local.get)
    counts = local.statistics()
    assert pickle.loads(pickle.dumps(counts)) == counts
    with pytest.raises(AttributeError):
        counts.opened = 0  # type: ignore[misc]
    assert ResourceStatistics() == ResourceStatistics(opened=0)


def test_statistics_from_any_thread_while_loops_are_at_work(runtime: LoopRuntime) -> None:
    """No count goes backwards, whoever looks."""
    keyed = KeyedLoopLocal(lambda key: object(), max_items=2)
    stop = threading.Event()

    async def work() -> None:
        while not stop.is_set():
            for key in range(4):
                async with keyed(key):
                    await asyncio.sleep(0)

    working = runtime.submit(work)
    seen = [keyed.statistics() for _ in range(300)]
    stop.set()
    working.result(BOUND)
    for earlier, later in itertools.pairwise(seen):
        assert earlier.hits <= later.hits
        assert earlier.misses <= later.misses
        assert earlier.evicted <= later.evicted
        assert earlier.closed <= later.closed <= later.opened
