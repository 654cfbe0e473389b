"""Whoever stops waiting for a thread or a process, however and for what, costs nobody a place."""

import asyncio
import functools
import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import isolated_work as work
import pytest

from homeloop import IsolatedScope, Isolation, IsolationExecutor
from homeloop.errors import CallTimeoutError
from homeloop.isolation._lending import Lending, Place

DEADLINE = 30.0  # seconds; tells a hang from an answer

PLACES = [Isolation.THREAD, Isolation.PROCESS]

Leave = Callable[[IsolationExecutor, Isolation, Callable[[], Awaitable[object]]], Awaitable[None]]


async def at_its_end(executor: IsolationExecutor, tier: Isolation, begun: Callable[[], Awaitable[object]]) -> None:
    """Leave a scope by the end of its block."""
    async with executor.isolated("left", isolation=tier) as scope:
        waits = asyncio.ensure_future(scope.run(work.identity, 1))
        await begun()
    with pytest.raises(RuntimeError, match=r"scope 'left' was left .*identity\(\).* was not called"):
        await waits


async def by_cancellation(
    executor: IsolationExecutor, tier: Isolation, begun: Callable[[], Awaitable[object]]
) -> None:
    """Cancel the task that a scope's block runs in, while another task's run waits."""
    waits: list[asyncio.Future[object]] = []

    async def block() -> None:
        async with executor.isolated("left", isolation=tier) as scope:
            waits.append(asyncio.ensure_future(scope.run(work.identity, 1)))
            await asyncio.Event().wait()

    leaves = asyncio.create_task(block())
    await asyncio.sleep(0)
    await begun()
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    with pytest.raises(RuntimeError, match="scope 'left' was left"):
        await waits[0]


async def by_cancelling_the_run(
    executor: IsolationExecutor, tier: Isolation, begun: Callable[[], Awaitable[object]]
) -> None:
    """Cancel the run itself, in its scope."""
    async with executor.isolated("left", isolation=tier) as scope:
        waits = asyncio.ensure_future(scope.run(work.identity, 1))
        await begun()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits


async def by_a_timeout(
    executor: IsolationExecutor, tier: Isolation, begun: Callable[[], Awaitable[object]]
) -> None:
    """Have a time limit around a scope pass."""
    limit = asyncio.timeout(None)
    with pytest.raises(TimeoutError):
        async with limit, executor.isolated("left", isolation=tier) as scope:
            waits = asyncio.ensure_future(scope.run(work.identity, 1))
            await begun()
            limit.reschedule(0.0)
            await asyncio.Event().wait()
    with pytest.raises(RuntimeError, match="scope 'left' was left"):
        await waits


async def by_the_runs_timeout(
    executor: IsolationExecutor, tier: Isolation, begun: Callable[[], Awaitable[object]]
) -> None:
    """Have the run's own time pass."""
    async with executor.isolated("left", isolation=tier) as scope:
        waits = asyncio.ensure_future(scope.run(work.identity, 1, timeout=0.3))
        await begun()
        with pytest.raises(CallTimeoutError):
            await waits


WAYS: list[Leave] = [at_its_end, by_cancellation, by_cancelling_the_run, by_a_timeout, by_the_runs_timeout]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def leave(request: pytest.FixtureRequest) -> Leave:
    """A way to stop waiting."""
    way: Leave = request.param
    return way


async def has_asked(executor: IsolationExecutor, tier: Isolation) -> None:
    """Wait until all who asked before this call wait for their turns: one who asks later waits in vain."""
    with pytest.raises(CallTimeoutError, match="waited for its turn"):
        await executor.run(work.identity, 0, isolation=tier, timeout=0.001)


@pytest.mark.parametrize("tier", PLACES)
def test_while_waiting_for_a_turn(go: Any, tier: Isolation, leave: Leave) -> None:
    """The turn goes to the next one, and the place is there for whoever comes then."""
    with IsolationExecutor(name="turns", max_threads=1, max_processes=1) as executor:

        async def main() -> None:
            async with executor.isolated("owner", isolation=tier) as owner:
                place = await owner.run(work.where)
                await leave(executor, tier, functools.partial(has_asked, executor, tier))
            assert await executor.run(work.where, isolation=tier, timeout=DEADLINE) == place
            assert executor.statistics().tiers[tier].lent == 0

        go(main)


@pytest.mark.parametrize("tier", PLACES)
def test_when_the_turn_has_just_come(go: Any, tier: Isolation) -> None:
    """A scope that is left in the moment in which its run gets its turn hands it on."""
    with IsolationExecutor(name="crossing", max_threads=1, max_processes=1) as executor:

        async def main() -> None:
            async with executor.isolated("owner", isolation=tier) as owner:
                await owner.run(work.identity, 0)
                scope = await executor.isolated("left", isolation=tier).__aenter__()
                waits = asyncio.ensure_future(scope.run(work.wait_for_ever))
                await has_asked(executor, tier)
            await scope.__aexit__(None, None, None)
            await asyncio.wait((waits,), timeout=DEADLINE)
            assert waits.done()
            assert waits.cancelled() or "scope 'left' was left" in str(waits.exception())
            assert await executor.run(work.identity, 2, isolation=tier, timeout=DEADLINE) == 2
            assert executor.statistics().tiers[tier].lent == 0

        go(main)


def test_while_waiting_for_a_workers_start(go: Any, tmp_path: Path, leave: Leave) -> None:
    """The worker that comes too late serves the next one, and its place is there again."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with IsolationExecutor(
        name="starts", max_processes=1, initializer=functools.partial(work.pass_gate, str(gate))
    ) as executor:

        async def main() -> None:
            ends: list[Any] = []

            async def starting() -> None:
                ends.append(await asyncio.to_thread(open, gate, "w"))  # opens when the worker has

            await leave(executor, Isolation.PROCESS, starting)
            ends.pop().close()
            assert await executor.run(work.identity, 2, isolation=Isolation.PROCESS, timeout=DEADLINE) == 2
            statistics = executor.statistics().tiers[Isolation.PROCESS]
            assert (statistics.lent, statistics.kept, statistics.ended) == (0, 1, 0)

        go(main)


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, *PLACES])
def test_before_the_first_step(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """What has not begun when its scope is left does not begin, or ends with it; thread and process stay."""
    ran: list[str] = []

    async def note() -> None:
        ran.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("ended")

    async def main() -> None:
        fn = note if tier is not Isolation.PROCESS else work.wait_for_ever
        place = await executor.run(work.where, isolation=tier)
        for turns in range(4):
            scope: IsolatedScope
            async with executor.isolated("left", isolation=tier) as scope:
                runs = asyncio.ensure_future(scope.run(fn))
                for _ in range(turns):
                    await asyncio.sleep(0)
            await asyncio.wait((runs,), timeout=DEADLINE)
            assert runs.done()
            assert runs.cancelled() or "was left" in str(runs.exception()) or "not open" in str(runs.exception())
            assert ran.count("begun") == ran.count("ended")
            assert await executor.run(work.where, isolation=tier, timeout=DEADLINE) == place

    go(main)


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, *PLACES])
def test_cancelled_while_leaving(go: Any, tier: Isolation) -> None:
    """A cancellation at any step of the end of a block, also before the first one, keeps no place."""
    with IsolationExecutor(name="leaving", max_threads=1, max_processes=1) as executor:

        async def block(done: asyncio.Event, turns: int) -> None:
            async with executor.isolated("left", isolation=tier) as scope:
                await scope.run(work.identity, 1)
                done.set()
                if not turns and (task := asyncio.current_task()) is not None:
                    task.cancel()

        async def main() -> None:
            for turns in range(4):
                done = asyncio.Event()
                leaves = asyncio.create_task(block(done, turns))
                await done.wait()
                for _ in range(turns):
                    leaves.cancel()
                    await asyncio.sleep(0)
                await asyncio.wait((leaves,), timeout=DEADLINE)
                assert leaves.done()
                assert await executor.run(work.identity, 2, isolation=tier, timeout=DEADLINE) == 2
                assert executor.statistics().tiers[tier].lent == 0

        go(main)


def test_waiters_whose_loops_are_closed(go: Any) -> None:
    """Whoever waits on a loop that is closed under it is passed over, and thrown away gives back nothing."""

    async def borrow() -> Place[object]:
        return await lending.borrow()

    class Collecting(asyncio.SelectorEventLoop):
        """Collects garbage where the collector may: while somebody is served."""

        def call_soon_threadsafe(self, *args: Any, **options: Any) -> Any:
            gc.collect()
            return super().call_soon_threadsafe(*args, **options)

    def wait_in_vain() -> None:
        loop = Collecting()
        waits: Any = loop.create_task(borrow())
        waits._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    lending: Lending[object] = Lending("bound", 1, lambda: None)
    place = go(borrow)
    for _ in range(3):
        wait_in_vain()
    place.give_back()
    gc.collect()
    assert lending.lent == 0
    go(borrow)
    assert lending.lent == 1
