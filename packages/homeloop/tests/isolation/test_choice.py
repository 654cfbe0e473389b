"""AUTO begins with a context and goes one tier further when a kind of work turns out to need it."""

import asyncio
import logging
import threading
import time
from typing import Any

import isolated_work as work
import pytest
import reporting_work as reporting

from homeloop import Isolation, IsolationExecutor
from homeloop._events import IsolationEscalated, TaskSpilled
from homeloop.errors import CallTimeoutError, NotTransferableError, WrongLoopError


@pytest.fixture
def executor() -> Any:
    """An executor that has learnt nothing. A busy machine must not look like a blocked loop."""
    with IsolationExecutor(name="auto", block_threshold=10.0, max_processes=1, max_threads=1) as made:
        yield made


def tier(executor: IsolationExecutor, kind: str) -> Isolation:
    """Return where a kind runs next."""
    return executor.statistics().kinds[kind].tier


def test_harmless_work_stays(executor: IsolationExecutor, go: Any) -> None:
    """Work of which nothing is seen runs in a context."""

    async def main() -> None:
        for _ in range(3):
            assert (await executor.run(work.where))[1] == threading.get_ident()
        with pytest.raises(work.Refused):
            await executor.run(work.refuse)
        with pytest.raises(TimeoutError):
            await executor.run(work.wait_for_ever, timeout=0.05)

    go(main)
    assert executor.statistics().kinds == {}


def test_spill_over_moves_it_on(executor: IsolationExecutor, go: Any, heard: Any, caplog: Any) -> None:
    """Tasks left: one tier further each time, for this kind alone; said in the log and in the statistics."""
    kind = "isolated_work.leak_tasks()"

    async def main() -> None:
        for expected in (Isolation.THREAD, Isolation.PROCESS, Isolation.PROCESS):
            await executor.run(work.leak_tasks)
            assert tier(executor, kind) is expected
        assert (await executor.run(work.where))[1] == threading.get_ident()

    with caplog.at_level(logging.WARNING, logger="homeloop"):
        go(main)
    moves = heard(IsolationEscalated)
    assert [(move.before, move.after) for move in moves] == [("context", "thread"), ("thread", "process")]
    assert all("of its tasks outlived it" in move.reason for move in moves)
    assert f"{kind} runs in tier 'thread' instead of 'context' from now on" in caplog.text
    assert len(executor.statistics().kinds[kind].reasons) == 2
    assert [executor.statistics().tiers[each].runs for each in (Isolation.THREAD, Isolation.PROCESS)] == [1, 1]


def test_blocking_moves_it_on(go: Any) -> None:
    """A blocked loop: only the kind that blocks is moved, not those that it stalls."""
    with IsolationExecutor(name="auto", block_threshold=0.2) as executor:

        async def main() -> None:
            beside = asyncio.ensure_future(executor.run(work.clean_up_nothing, 0.3))
            await asyncio.sleep(0)
            await executor.run(work.block, 1.5)
            await beside

        go(main)
        assert tier(executor, "isolated_work.block()") is Isolation.THREAD
        assert "isolated_work.clean_up_nothing()" not in executor.statistics().kinds


async def wrong_loop() -> None:
    raise WrongLoopError("a pool", "loop 1", "loop 2")


async def different_loop() -> None:
    raise RuntimeError("Task got Future <Future pending> attached to a different loop")


async def something_else() -> None:
    raise RuntimeError("the loop of the story is closed")


@pytest.mark.parametrize(("fn", "moves"), [(wrong_loop, True), (different_loop, True), (something_else, False)])
def test_affinity_errors_move_it_on(executor: IsolationExecutor, go: Any, fn: Any, moves: bool) -> None:
    """Errors of objects that live on another loop; the error itself still reaches the caller."""

    async def main() -> None:
        with pytest.raises(RuntimeError):
            await executor.run(fn, kind="mine")

    go(main)
    assert ("mine" in executor.statistics().kinds) is moves


def test_pins(executor: IsolationExecutor, go: Any) -> None:
    """A pinned kind runs where it is told, whatever is seen; unpinned it begins anew."""

    async def main() -> None:
        executor.pin(work.where, Isolation.THREAD)
        assert (await executor.run(work.where))[1] != threading.get_ident()
        executor.pin(work.leak_tasks, Isolation.CONTEXT)
        await executor.run(work.leak_tasks)
        assert executor.statistics().kinds["isolated_work.leak_tasks()"].pinned
        assert tier(executor, "isolated_work.leak_tasks()") is Isolation.CONTEXT
        executor.pin(work.where, None)
        assert (await executor.run(work.where))[1] == threading.get_ident()

    go(main)
    with pytest.raises(ValueError, match="pin a tier"):
        executor.pin("kind", Isolation.AUTO)


def test_a_pinned_kind_that_cannot_cross_says_so(executor: IsolationExecutor, go: Any) -> None:
    """It is not tried again, where it would be told the same."""
    executor.pin(work.where, Isolation.PROCESS)
    with pytest.raises(NotTransferableError):
        go(lambda: executor.run(work.where, threading.Lock()))


def test_scopes_learn_at_their_end(executor: IsolationExecutor, go: Any) -> None:
    """What a scope leaves behind counts for its kind."""

    async def main() -> None:
        async with executor.isolated("first", kind="graph") as scope:
            await scope.run(work.leak_tasks)
            assert scope.tier is Isolation.CONTEXT
        async with executor.isolated("second", kind="graph") as scope:
            await scope.run(work.where)
            assert scope.tier is Isolation.THREAD

    go(main)


@pytest.mark.parametrize("isolation", [Isolation.AUTO, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS])
def test_scopes_blame_the_run_that_did_it(
    executor: IsolationExecutor, go: Any, heard: Any, isolation: Isolation
) -> None:
    """A task belongs to the run it was born in; a run that the end of the block cuts short is no leftover."""
    guilty = "isolated_work.leak_tasks()"

    async def main() -> None:
        async with executor.isolated("mixed", isolation=isolation) as scope:
            await scope.run(work.where)
            await scope.run(work.leak_tasks)
            await scope.run(work.where)
        begun = asyncio.Event()
        async with executor.isolated("cut short", isolation=isolation) as scope:
            cut = asyncio.ensure_future(scope.run(reporting.report_then_wait, on_progress=lambda *_: begun.set()))
            await begun.wait()
        (ended,) = await asyncio.gather(cut, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)

    go(main)
    assert {event.what for event in heard(TaskSpilled)} == {guilty}
    assert set(executor.statistics().kinds) == ({guilty} if isolation is Isolation.AUTO else set())


def test_work_that_cannot_cross_stays_in_a_thread(executor: IsolationExecutor, go: Any, heard: Any) -> None:
    """The choice never makes a call fail that could be made: what cannot go to a process runs in a thread."""

    async def main() -> None:
        lock = threading.Lock()
        for _ in range(2):
            await executor.run(leak_and_return, lock, kind="locks")
        assert tier(executor, "locks") is Isolation.PROCESS
        assert await executor.run(leak_and_return, lock, kind="locks") is lock
        assert executor.statistics().kinds["locks"].pinned
        assert tier(executor, "locks") is Isolation.THREAD

    go(main)
    assert [event.after for event in heard(IsolationEscalated)] == ["thread", "process", "thread"]


def test_the_time_of_a_vain_try_counts(executor: IsolationExecutor, go: Any) -> None:
    """Work that waits for a process which it then cannot cross to has only the rest of its time in a thread."""

    class Slow:
        """Takes all the time there is to find out that it cannot be pickled."""

        def __reduce__(self) -> str:
            time.sleep(0.1)
            raise TypeError("not this one")

    async def main() -> None:
        for _ in range(2):
            await executor.run(leak_and_return, None, kind="slow")
        with pytest.raises(CallTimeoutError) as caught:
            await executor.run(leak_and_return, Slow(), kind="slow", timeout=0.05)
        assert caught.value.timeout == 0.05
        assert caught.value.never_began

    go(main)


async def leak_and_return(thing: object) -> object:
    await work.leak_tasks()
    return thing


def test_results_that_cannot_cross(executor: IsolationExecutor, go: Any) -> None:
    """A result that cannot come back fails one call; the kind goes back to a thread."""

    async def main() -> None:
        for _ in range(2):
            await executor.run(work.leak_tasks, kind="results")
        with pytest.raises(NotTransferableError):
            await executor.run(work.return_lock, kind="results")
        assert await executor.run(work.return_lock, kind="results") is not None

    go(main)
