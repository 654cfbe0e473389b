"""Leases at the edges: given back late, never, from the wrong place, or by the garbage collector."""

import asyncio
import gc
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime
from homeloop.errors import LoopEndingError

BOUND = 10.0  # seconds


class Pool:
    """A resource that may take its time to close, and counts how often it was."""

    def __init__(self, key: object = None, gate: asyncio.Event | None = None) -> None:
        self.key = key
        self.gate = gate
        self.closed = 0

    async def aclose(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.closed += 1


class Slow(Pool):
    """A resource that closes when it is told."""

    def __init__(self, key: object = None) -> None:
        super().__init__(key, asyncio.Event())


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What went wrong where nobody could be told."""
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(told.exc_value))
    yield seen
    gc.collect()


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("make", [LoopLocal, KeyedLoopLocal])
def test_the_end_of_an_old_instance_does_not_take_the_new_one_along(make: Any, runtime: LoopRuntime) -> None:
    """What was opened while its predecessor was being closed stays the loop's one instance."""
    local = make(Slow)
    get = local.get if isinstance(local, LoopLocal) else lambda: local.get("a")

    async def main() -> None:
        old = await get()
        closing = asyncio.create_task(local.aclose())
        await turns()
        new = await get()
        assert new is not old
        old.gate.set()
        await closing
        assert await get() is new
        new.gate.set()
        await local.aclose()
        assert (old.closed, new.closed) == (1, 1)

    runtime.run(main)
    assert local.statistics().opened == 2


def test_a_resource_whose_leases_do_not_come_back_is_closed_all_the_same(runtime: LoopRuntime) -> None:
    """After close_timeout: nobody else would ever close it, and a lease that comes late changes nothing."""
    local = LoopLocal(Pool, close_timeout=0.01)

    async def main() -> Pool:
        async with local() as pool:
            await local.aclose()
            assert pool.closed == 1
            async with local() as another:
                assert another is not pool
        return pool

    assert runtime.run(main).closed == 1
    counts = local.statistics()
    assert (counts.opened, counts.closed, counts.in_use) == (2, 1, 0)


def test_a_lease_is_entered_once(runtime: LoopRuntime) -> None:
    """One that two tasks shared would give back what the other one holds."""
    local = LoopLocal(Pool)

    async def main() -> None:
        lease = local()
        async with lease:
            with pytest.raises(RuntimeError, match="entered once"):
                await lease.__aenter__()
        with pytest.raises(RuntimeError, match="entered once"):
            await lease.__aenter__()

    runtime.run(main)
    assert local.statistics().in_use == 0


def suspended(work: Callable[[], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None]:
    """Drive a coroutine to its first wait, for nobody to drive it on."""
    coroutine = work()
    coroutine.send(None)
    return coroutine


async def hold(lease: AbstractAsyncContextManager[Pool]) -> None:
    async with lease:
        await asyncio.get_running_loop().create_future()


def test_a_lease_that_is_collected_after_its_loop_makes_no_noise(unraisable: list[object]) -> None:
    """The loop was closed under a task that held it; nothing is started on that loop any more."""
    local = KeyedLoopLocal(Pool, max_idle=3600.0)
    held: list[object] = []

    async def main() -> None:
        await local.get("a")
        held.append(suspended(lambda: hold(local("a"))))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    held.clear()
    gc.collect()
    assert unraisable == []
    assert local.statistics().instances == ()


def test_a_lease_that_is_collected_on_another_thread_is_given_back_on_its_own(
    runtime: LoopRuntime, unraisable: list[object]
) -> None:
    """A closing that waits for it is woken."""
    local = LoopLocal(Pool, close_timeout=BOUND)
    held: list[object] = []

    async def main() -> "asyncio.Task[None]":
        asyncio.get_running_loop().set_debug(True)  # it notices who wakes its tasks from another thread
        await local.get()
        held.append(suspended(lambda: hold(local())))
        closing = asyncio.create_task(local.aclose())
        await turns()
        return closing

    async def closed(closing: "asyncio.Task[None]") -> None:
        async with asyncio.timeout(BOUND / 2):
            await closing

    closing = runtime.run(main)
    threading.Thread(target=held.clear).start()
    runtime.run(closed, closing)
    assert unraisable == []
    assert local.statistics().closed == 1


def test_one_who_waited_for_an_opening_is_collected_after_the_loop(unraisable: list[object]) -> None:
    """A loop that dies while it opens something leaves no errors to those who collect what is left."""
    local = KeyedLoopLocal(Slow, max_idle=3600.0)
    held: list[object] = []

    async def never(_: str) -> Pool:
        return await asyncio.get_running_loop().create_future()

    opening = KeyedLoopLocal(never, max_idle=3600.0)

    async def main() -> None:
        held.append(suspended(lambda: opening.get("a")))
        await turns()
        await local.get("a")
        held.append(asyncio.create_task(local.aclose()))
        await turns()

    loop = asyncio.new_event_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    loop.run_until_complete(main())
    loop.close()
    assert opening.statistics().instances == local.statistics().instances == ()
    held.clear()
    gc.collect()
    assert unraisable == []
    assert set(complaints) <= {"Task was destroyed but it is pending!"}
    assert (opening.statistics().failed, local.statistics().closed) == (0, 0)


def test_an_opening_that_came_too_late_and_cannot_be_closed_is_not_counted_for_ever() -> None:
    """Neither heeds its cancellation; the loop ends all the same, and nothing of it is counted as open."""
    gate = asyncio.Event()

    async def until_told() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    class Stubborn:
        async def aclose(self) -> None:
            await until_told()

    async def make() -> Stubborn:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            pass
        return Stubborn()

    local = LoopLocal(make, close_timeout=0.01)

    async def main() -> "asyncio.Task[Stubborn]":
        user = asyncio.create_task(local.get())
        await turns()
        return user

    loop = asyncio.new_event_loop()
    user = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    counts = local.statistics()
    gate.set()
    loop.run_until_complete(asyncio.wait({user, *asyncio.all_tasks(loop)}))
    assert isinstance(user.exception(), LoopEndingError)
    loop.close()
    assert (counts.opened, counts.live, counts.instances) == (1, 0, ())


@pytest.mark.parametrize("seed", range(10))
def test_in_any_order_one_instance_is_handed_out_and_what_is_leased_stays_open(
    seed: int, runtime: LoopRuntime
) -> None:
    """Leases, closings, idle evictions and cancellations; openings and closings take some turns."""
    chance = random.Random(seed)
    leased: Counter[Pool] = Counter()
    broken: list[str] = []

    class Turning(Pool):
        async def aclose(self) -> None:
            if leased[self]:
                broken.append("closed under a lease")
            await turns(chance.randrange(4))
            self.closed += 1

    async def make(key: str) -> Turning:
        await turns(chance.randrange(4))
        return Turning(key)

    local = KeyedLoopLocal(make, max_items=1, max_idle=0.001, close_timeout=BOUND)

    async def user() -> None:
        async with local("key") as pool:
            leased[pool] += 1
            try:
                await turns(chance.randrange(6))
            finally:
                leased[pool] -= 1

    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []
        for _ in range(150):
            match chance.randrange(5):
                case 0:
                    tasks.append(asyncio.create_task(local.aclose("key")))
                case 1 if tasks:
                    chance.choice(tasks).cancel()
                case _:
                    tasks.append(asyncio.create_task(user()))
            await turns(chance.randrange(3))
            if sum(each.is_open for each in local.statistics().instances) > 1:
                broken.append("two are handed out")
        await asyncio.wait(tasks, timeout=BOUND)
        failures = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
        await local.aclose()
        assert (failures, broken) == ([], [])

    runtime.run(main)
    counts = local.statistics()
    assert (counts.live, counts.in_use, counts.waiting, counts.instances) == (0, 0, 0, ())
