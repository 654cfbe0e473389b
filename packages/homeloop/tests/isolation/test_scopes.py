"""A scope is entered once, used on one loop, and gives back all it was lent, however it is left."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import isolated_work as work
import pytest

from homeloop import IsolatedScope, Isolation, IsolationExecutor, enclosed
from homeloop.errors import WrongLoopError

EVERY = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS, Isolation.AUTO]
DEADLINE = 30.0  # seconds; tells a hang from an answer


@pytest.fixture(params=EVERY)
def tier(request: pytest.FixtureRequest) -> Isolation:
    """Every tier."""
    return Isolation(request.param)


async def run(scope: IsolatedScope) -> object:
    """Run something in a scope."""
    return await scope.run(work.identity, 1)


async def iterate(scope: IsolatedScope) -> object:
    """Iterate something in a scope."""
    return [item async for item in scope.stream(work.count_up, 1)]


async def leave(scope: IsolatedScope) -> object:
    """Leave a scope."""
    await scope.__aexit__(None, None, None)
    return None


WAYS: list[Callable[[IsolatedScope], Awaitable[object]]] = [run, iterate, leave]


def test_a_scope_is_entered_once(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """A second time is refused, inside and afterwards, whether anything was run in between or not."""

    async def main() -> None:
        for uses in (0, 1):
            scope = executor.isolated("once", isolation=tier)
            async with scope:
                for _ in range(uses):
                    assert await scope.run(work.identity, 1) == 1
                with pytest.raises(RuntimeError, match=r"'once' was entered before; call isolated\(\) again"):
                    await scope.__aenter__()
                assert await scope.run(work.identity, 2) == 2
            with pytest.raises(RuntimeError, match="scope 'once' was entered before"):
                await scope.__aenter__()

    go(main)


def test_what_is_not_open_is_not_used(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """Before it is entered and after it was left, the error says what to do."""

    async def main() -> None:
        scope = executor.isolated("shut", isolation=tier)
        for way in WAYS:
            with pytest.raises(RuntimeError, match="scope 'shut' is not open: async with"):
                await way(scope)
        async with scope:
            pass
        for way in WAYS:
            with pytest.raises(RuntimeError, match=r"scope 'shut' is not open any more; call isolated\(\) again"):
                await way(scope)

    go(main)


def test_a_scope_belongs_to_one_loop(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """Another loop is refused by an error that names both, whatever it wants; the scope goes on on its own."""

    async def main() -> None:
        async with executor.isolated("mine", isolation=tier) as scope:
            await scope.run(work.identity, 1)
            for way in WAYS:
                with pytest.raises(WrongLoopError) as caught:
                    await asyncio.to_thread(asyncio.run, _await(way, scope))
                assert caught.value.what == "scope 'mine'"
                assert "MainThread" in caught.value.owner
                assert "MainThread" not in caught.value.current
                assert "make another one for another loop" in str(caught.value)
                assert caught.value.owner in str(caught.value)
                assert caught.value.current in str(caught.value)
            assert await scope.run(work.identity, 2) == 2

    go(main)


async def _await(way: Callable[[IsolatedScope], Awaitable[object]], scope: IsolatedScope) -> None:
    await way(scope)


def test_a_cancelled_end_closes_everything(go: Any) -> None:
    """A scope that went to another tier on its way closes what it has in both, also when its end is cancelled."""
    lock, may_end = threading.Lock(), threading.Event()
    left: list[asyncio.Task[None]] = []
    tiers: list[Isolation | None] = []
    with IsolationExecutor(name="both", max_threads=1, max_processes=1) as executor:

        async def main() -> None:
            loop, cleaning = asyncio.get_running_loop(), asyncio.Event()

            async def clean_up_slowly() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    loop.call_soon_threadsafe(cleaning.set)
                    await asyncio.to_thread(may_end.wait, DEADLINE)

            async def leave_one_behind(_: object) -> None:
                left.append(asyncio.create_task(clean_up_slowly()))
                await asyncio.sleep(0)

            async def block() -> None:
                async with executor.isolated("both", kind="moves") as scope:
                    for fn in (work.identity, leave_one_behind):
                        await scope.run(fn, lock if fn is leave_one_behind else 1)  # a lock does not cross
                        tiers.append(scope.tier)

            for _ in range(2):
                await executor.run(work.leak_tasks, kind="moves")
            leaves = asyncio.create_task(block())
            await cleaning.wait()
            leaves.cancel()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await leaves
            assert tiers == [Isolation.PROCESS, Isolation.THREAD]
            tiers.clear()
            for each in (Isolation.THREAD, Isolation.PROCESS):
                assert await executor.run(work.identity, each, isolation=each, timeout=DEADLINE) == each

        go(main)
    left.clear()
    work.tasks.clear()


def test_a_block_belongs_to_one_loop_and_is_left_once(go: Any) -> None:
    """Another loop is refused before it touches anything, and so is leaving what is not open."""

    async def leave_block(block: Any) -> None:
        await block.__aexit__(None, None, None)

    async def main() -> None:
        block = enclosed("mine")
        with pytest.raises(RuntimeError, match="block 'mine' is not open"):
            await leave_block(block)
        async with block:
            born = asyncio.create_task(work.wait_for_ever())
            with pytest.raises(WrongLoopError, match="block 'mine' belongs to .*MainThread"):
                await asyncio.to_thread(asyncio.run, leave_block(block))
            assert not born.cancelling()
        assert born.cancelled()
        with pytest.raises(RuntimeError, match="block 'mine' is not open"):
            await leave_block(block)

    go(main)
