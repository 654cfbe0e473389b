"""Threads and processes are bounded, and lent to one scope at a time; waiting for them takes the runs' time."""

import asyncio
import functools
import gc
import threading
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import isolated_work as work
import pytest
import reporting_work as reporting
from processes_seen import appears
from waiting import DEADLINE, until

from homeloop import Isolation, IsolationExecutor, LoopRuntime, bind_callback
from homeloop.errors import CallTimeoutError
from homeloop.isolation._watch import Watch


async def wait_on_thread(told: threading.Event) -> None:
    """Block the loop until it has been told."""
    told.wait(DEADLINE)


def test_a_scope_goes_on_after_a_blocked_run(go: Any) -> None:
    """A run that blocks for good costs a scope its thread, not its further runs."""
    release = threading.Event()
    with IsolationExecutor(name="goes-on", grace=0.2) as executor:

        async def main() -> None:
            async with executor.isolated("long", isolation=Isolation.THREAD) as scope:
                before = await scope.run(work.where)
                with pytest.raises(TimeoutError, match="the loop is blocked at"):
                    await scope.run(wait_on_thread, release, timeout=0.1)
                assert await scope.run(work.where, timeout=30) != before

        try:
            go(main)
        finally:
            release.set()


def test_siblings_of_an_abandoned_run_go_on(go: Any, tmp_path: Path) -> None:
    """A run that ignores its cancellation costs the scope its thread; the runs beside it there are not ended."""
    ready, release = tmp_path / "ready", tmp_path / "release"
    with IsolationExecutor(name="siblings", grace=0.2, max_threads=2) as executor:

        async def main() -> None:
            async with executor.isolated("both", isolation=Isolation.THREAD) as scope:
                sibling = asyncio.ensure_future(scope.run(work.wait_for_file, str(ready), str(release)))
                await appears(ready)
                with pytest.raises(CallTimeoutError) as caught:
                    await scope.run(work.ignore_cancellation, 2.0, timeout=0.1)
                assert caught.value.abandoned
                assert await scope.run(work.identity, 1) == 1
                assert not sibling.done()
                release.touch()
                assert await sibling == "released"

        go(main)
    ready.unlink()
    release.unlink()


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS])
def test_waiting_for_a_siblings_loan_takes_time(go: Any, tier: Isolation) -> None:
    """While a scope's first run waits for a thread or process, the next one waits for that, in its own time."""
    with IsolationExecutor(name="loan", max_threads=1, max_processes=1) as executor:

        async def main() -> None:
            async with executor.isolated("owner", isolation=tier) as owner:
                await owner.run(work.identity, 0)
                async with executor.isolated("waits", isolation=tier) as scope:
                    first = asyncio.ensure_future(scope.run(work.identity, 1))
                    await asyncio.sleep(0)
                    with pytest.raises(CallTimeoutError, match="waited for its turn"):
                        await scope.run(work.identity, 2, timeout=0.1)
                    first.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await first

        go(main)


def test_threads_that_cannot_be_ended_have_their_places(go: Any) -> None:
    """Work that blocks for good keeps its thread, and no further one is started for it until that has ended."""
    release = threading.Event()
    with IsolationExecutor(name="stuck", grace=0.1, max_threads=1) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=Isolation.THREAD)
            with pytest.raises(CallTimeoutError, match="the loop is blocked at"):
                await run(wait_on_thread, release, timeout=0.1)
            for _ in range(3):
                with pytest.raises(CallTimeoutError, match="waited for its turn"):
                    await run(work.identity, 1, timeout=0.1)
            names = {each.name for each in threading.enumerate() if each.name.startswith("homeloop-stuck-")}
            assert len([name for name in names if name[-1].isdigit()]) == 1
            assert executor.statistics().tiers[Isolation.THREAD].lent == 1
            release.set()
            assert await run(work.identity, 1) == 1

        try:
            go(main)
        finally:
            release.set()


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS])
def test_callbacks_need_no_further_place(go: Any, tier: Isolation) -> None:
    """Work waits for its callback, so what that runs in the same tier does not wait for the work's place."""
    with IsolationExecutor(name="more", max_threads=1, max_processes=1) as executor:

        async def main() -> None:
            got: list[object] = []

            async def hear(*_: object) -> None:
                got.append(await executor.run(work.identity, 2, isolation=tier))

            run = functools.partial(executor.run, isolation=tier, timeout=DEADLINE / 2, on_progress=hear)
            assert await run(reporting.report_many, 2) == 2
            stream = executor.stream(
                reporting.report_and_yield, isolation=tier, timeout=DEADLINE / 2, on_progress=bind_callback(hear)
            )
            assert [item async for item in stream] == [1, 2]
            assert got == [2, 2, 2]

        go(main)


class Thing:
    """Something that a context variable holds."""


held: ContextVar[Thing | None] = ContextVar("held", default=None)


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS])
def test_what_is_kept_keeps_no_context(go: Any, tier: Isolation) -> None:
    """A thread or process that a run has had started does not keep that run's context variables alive."""
    with IsolationExecutor(name="forgets", max_threads=1, max_processes=1) as executor:

        async def one() -> "weakref.ref[Thing]":
            thing = Thing()
            held.set(thing)
            await executor.run(work.identity, 1, isolation=tier)
            return weakref.ref(thing)

        async def main() -> None:
            ref = await asyncio.create_task(one())
            await until(lambda: gc.collect() >= 0 and ref() is None)  # after the other thread's last steps
            assert executor.statistics().tiers[tier].kept == 1

        go(main)


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS])
def test_what_was_lent_for_long_ends_when_it_is_idle(go: Any, tier: Isolation) -> None:
    """Nothing needs watching while a scope has a thread or process and does nothing; back again, it is idle."""
    with IsolationExecutor(name="long", idle_timeout=0.1, block_threshold=0.02) as executor:

        async def main() -> None:
            async with executor.isolated("long", isolation=tier) as scope:
                await scope.run(work.identity, 1)
                await until(lambda: not executor._watch._is_looking)  # it has ended, with nothing to see
            await until(lambda: executor.statistics().tiers[tier].ended)

        go(main)


def test_a_watch_that_begins_while_it_ends() -> None:
    """Whenever it is asked to begin, it looks at least once after that."""
    looked = threading.Event()

    def housekeep() -> bool:
        looked.set()
        return False

    with LoopRuntime(name="watching") as home:
        watch = Watch(home, 1e-6, housekeep)
        for _ in range(500):
            looked.clear()
            watch.begin()
            assert looked.wait(DEADLINE / 4)
