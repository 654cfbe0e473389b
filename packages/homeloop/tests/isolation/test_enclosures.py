"""What a scope contains: no task outlives it, its resources are its own; and what is told of it."""

import asyncio
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import isolated_work as work
import pytest
from waiting import until

import homeloop
from homeloop import Event, Isolation, IsolationExecutor, LoopLocal, add_instrument, enclosed
from homeloop._events import IsolatedRunEnded, IsolatedRunStarted, LoopBlocked, TaskSpilled

ISOLATED = [Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]


@pytest.fixture(params=ISOLATED)
def tier(request: pytest.FixtureRequest) -> Isolation:
    """Every tier that isolates."""
    return Isolation(request.param)


def test_no_task_outlives_it(executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """D4: tasks of one's own, of AnyIO and of gather are named with their line, cancelled, awaited, counted."""

    async def main() -> list[str]:
        assert await executor.run(work.leak_tasks, isolation=tier) == "leaked"
        if tier is Isolation.CONTEXT:
            return [name for name in await work.names_of_tasks() if not name.startswith("Task-")]
        return list(await executor.run(work.names_of_tasks, isolation=tier))

    before = executor.statistics().tiers[tier].leftovers
    left = go(main)
    assert [name for name in left if name in ("mine", "anyio's")] == []
    assert executor.statistics().tiers[tier].leftovers - before >= 4  # mine, anyio's, two of gather
    spilled: list[TaskSpilled] = heard(TaskSpilled)
    by_name = {event.task: event for event in spilled}
    assert "isolated_work.py" in by_name["mine"].created_at
    assert "in leak_tasks" in by_name["mine"].created_at
    assert "in leak_tasks" in by_name["anyio's"].created_at
    assert by_name["mine"].waiting_at[0].endswith("in wait_for_ever")
    assert all(event.ended and event.tier == tier.value for event in spilled)


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS], indirect=True)
def test_tasks_of_a_foreign_context(executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """Where the loop is the scope's alone, a task outlives it in no context whatever."""

    async def main() -> list[str]:
        await executor.run(work.leak_in_a_foreign_context, isolation=tier)
        return list(await executor.run(work.names_of_tasks, isolation=tier))

    assert "foreign" not in go(main)
    assert [event.task for event in heard(TaskSpilled)] == ["foreign"]


def test_other_peoples_tasks_are_left_alone(executor: IsolationExecutor, go: Any) -> None:
    """On the caller's loop only what was born inside is cancelled, also when scopes overlap or nest."""

    async def nested() -> str:
        may_end = asyncio.Event()
        mine = asyncio.create_task(may_end.wait())
        await executor.run(work.leak_tasks, isolation=Isolation.CONTEXT)
        assert not mine.done()
        may_end.set()
        return "mine" if await mine else ""

    async def main() -> None:
        may_end = asyncio.Event()
        outside = asyncio.create_task(may_end.wait())
        slow = asyncio.create_task(executor.run(nested, isolation=Isolation.CONTEXT))
        await executor.run(work.leak_tasks, isolation=Isolation.CONTEXT)
        assert not outside.done()
        assert await slow == "mine"
        may_end.set()
        assert await outside
        assert asyncio.get_running_loop().get_task_factory() is None

    go(main)


def test_a_task_factory_stays(executor: IsolationExecutor, go: Any, heard: Any) -> None:
    """The loop's own task factory is asked as before, inside too, and is back afterwards."""
    made = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        await executor.run(work.leak_tasks, isolation=Isolation.CONTEXT)
        assert loop.get_task_factory() is factory

    go(main)
    assert len(made) >= 4
    assert any("in leak_tasks" in event.created_at for event in heard(TaskSpilled))


def test_submitted_calls_end_with_their_scope(executor: IsolationExecutor, go: Any, heard: Any) -> None:
    """D4: what is handed to another loop inside is cancelled and awaited at the end, too, and named."""
    happened: list[str] = []

    async def elsewhere() -> None:
        try:
            started[-1].set_result(None)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            happened.append("cleaned up")

    started: list[Future[None]] = []

    async def inside() -> str:
        homeloop.submit(elsewhere)
        await asyncio.wrap_future(homeloop.submit(work.identity, 1))
        await asyncio.wrap_future(started[-1])
        return "returned"

    async def main() -> None:
        for tier in (Isolation.CONTEXT, Isolation.THREAD):
            started.append(Future())
            assert await executor.run(inside, isolation=tier) == "returned"
            assert happened.pop() == "cleaned up"
        started.append(Future())
        outside = homeloop.submit(elsewhere)
        await executor.run(work.identity, 1, isolation=Isolation.CONTEXT)
        assert not outside.done()
        outside.cancel()

    try:
        go(main)
    finally:
        homeloop.default_runtime().close()
    spilled: list[TaskSpilled] = heard(TaskSpilled)
    assert [event.ended for event in spilled] == [True, True]
    assert all("elsewhere()" in event.task and event.created_at.endswith("inside") for event in spilled)


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, Isolation.THREAD], indirect=True)
def test_clean_up_that_submits(executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """What a call hands over while it is cancelled is cancelled and awaited as well."""
    ended: list[str] = []

    async def second() -> None:
        try:
            started[1].set_result(None)
            await asyncio.Event().wait()
        finally:
            ended.append("second")

    async def first() -> None:
        try:
            started[0].set_result(None)
            await asyncio.Event().wait()
        finally:
            homeloop.submit(second)
            await asyncio.wrap_future(started[1])
            ended.append("first")

    started: list[Future[None]] = [Future(), Future()]

    async def inside() -> None:
        homeloop.submit(first)
        await asyncio.wrap_future(started[0])

    async def main() -> None:
        await executor.run(inside, isolation=tier)
        assert ended == ["first", "second"]

    try:
        go(main)
    finally:
        homeloop.default_runtime().close()
    assert [event.task.rpartition(".")[2] for event in heard(TaskSpilled)] == ["first()", "second()"]


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, Isolation.THREAD], indirect=True)
@pytest.mark.parametrize("surround", [nullcontext, homeloop.resource_scope])
def test_resources_that_submit(
    executor: IsolationExecutor,
    go: Any,
    heard: Any,
    tier: Isolation,
    surround: Callable[[], AbstractAsyncContextManager[None]],
) -> None:
    """A resource has the calls that it submits until it is closed; what it leaves then, or submits then, ends."""
    happened: list[str] = []

    async def wait(name: str, started: "Future[None]") -> None:
        try:
            started.set_result(None)
            await asyncio.Event().wait()
        finally:
            happened.append(f"{name} ended")

    async def begin(name: str) -> None:
        started: Future[None] = Future()
        homeloop.submit(wait, name, started)
        await asyncio.wrap_future(started)

    class Talkative:
        async def __aenter__(self) -> "Talkative":
            await begin("early")
            return self

        async def __aexit__(self, *_: object) -> None:
            await begin("late")
            happened.append("closed")

    talkative = LoopLocal(Talkative)

    async def inside() -> None:
        async with surround():
            await talkative.get()

    async def main() -> None:
        await executor.run(inside, isolation=tier)
        assert happened[0] == "closed"
        assert sorted(happened[1:]) == ["early ended", "late ended"]

    try:
        go(main)
    finally:
        homeloop.default_runtime().close()
    spilled: list[TaskSpilled] = heard(TaskSpilled)
    assert ["wait()" in event.task and event.what.endswith("inside()") for event in spilled] == [True, True]


def test_a_block_left_in_another_task(go: Any) -> None:
    """It says so, after it has closed what was left."""

    async def main() -> None:
        block = enclosed("elsewhere")
        left: list[asyncio.Task[Any]] = []

        async def enter() -> None:
            await block.__aenter__()
            left.append(asyncio.create_task(work.wait_for_ever()))

        await asyncio.create_task(enter())
        with pytest.raises(RuntimeError, match="block 'elsewhere' was left in another task"):
            await block.__aexit__(None, None, None)
        assert left[0].cancelled()
        assert asyncio.get_running_loop().get_task_factory() is None

    go(main)


def chain(loop: asyncio.AbstractEventLoop) -> None:
    """Put a task factory over the loop's, as libraries do that watch tasks."""
    below: Any = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **options) if below is None else below(loop, coro, **options)

    loop.set_task_factory(factory)


def test_task_factories_that_chain_over_ours(executor: IsolationExecutor, go: Any, heard: Any) -> None:
    """Libraries put theirs over ours, inside and after, and leave them there: each task is made once."""

    async def inside() -> None:
        chain(asyncio.get_running_loop())
        await work.leak_tasks()

    async def main() -> None:
        for _ in range(3):
            await executor.run(inside, isolation=Isolation.CONTEXT)
            chain(asyncio.get_running_loop())
            assert await executor.run(work.identity, 1, isolation=Isolation.CONTEXT) == 1
            assert await asyncio.create_task(work.identity(2)) == 2

    go(main)
    assert [event.task for event in heard(TaskSpilled)].count("mine") == 3


def test_task_factories_that_are_put_back(executor: IsolationExecutor, go: Any, heard: Any) -> None:
    """A library that puts back what it found, ours, when nobody is inside any more, harms nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        found: list[Any] = []

        async def inside() -> None:
            found.append(loop.get_task_factory())
            chain(loop)

        await executor.run(inside, isolation=Isolation.CONTEXT)
        loop.set_task_factory(found[0])
        for _ in range(2):
            await executor.run(work.leak_tasks, isolation=Isolation.CONTEXT)

    go(main)
    assert ["in leak_tasks" in event.created_at for event in heard(TaskSpilled) if event.task == "mine"] == [
        True
    ] * 2


def test_many_tasks_beside_an_enclosure() -> None:
    """The lines that created dead tasks are looked for ever more rarely the more tasks are alive."""
    looks: list[str] = []

    def count(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_drop_dead":
            looks.append(event)

    async def main() -> None:
        end = asyncio.Event()
        async with enclosed("open"), asyncio.TaskGroup() as group:
            sys.setprofile(count)
            for _ in range(30_000):
                group.create_task(end.wait())
            sys.setprofile(None)
            end.set()

    asyncio.run(main())
    assert 1 <= len(looks) <= 2  # at 10,000, and at 20,000


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_eager_tasks(executor: IsolationExecutor, tier: Isolation) -> None:
    """An eager task factory of the caller's loop changes nothing. (uvloop 0.23 fails with that of 3.13.)"""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await executor.run(work.identity, 1, isolation=tier) == 1
        assert await executor.run(work.leak_tasks, isolation=tier) == "leaked"
        with pytest.raises(TimeoutError):
            await executor.run(work.wait_for_ever, isolation=tier, timeout=0.1)
        async with executor.isolated("eager", isolation=tier) as scope:
            assert await scope.run(work.identity, 2) == 2

    asyncio.run(main())


@pytest.mark.parametrize("tier", ISOLATED)
def test_stubborn_tasks(go: Any, heard: Any, tier: Isolation) -> None:
    """What ignores its cancellation is let go in time and reported; its thread or process serves nobody else."""
    with IsolationExecutor(name="stubborn", grace=0.5) as executor:

        async def main() -> None:
            first = await executor.run(work.where, isolation=tier)
            assert await executor.run(work.leak_stubborn, 1.5, isolation=tier) == "leaked"
            if tier is not Isolation.CONTEXT:
                assert await executor.run(work.where, isolation=tier) != first
            for task in work.tasks:
                if task.get_loop() is asyncio.get_running_loop() and not task.done():
                    await task

        go(main)
        statistics = executor.statistics().tiers[tier]
    assert statistics.stubborn == 1
    assert statistics.ended == (tier is not Isolation.CONTEXT)
    assert [event.ended for event in heard(TaskSpilled)] == [False]
    work.tasks.clear()


class Recorder:
    """A resource that tells where it was opened and closed."""

    log: list[tuple[str, int]] = []  # noqa: RUF012 - of this process

    def __init__(self) -> None:
        self.log.append(("open", threading.get_ident()))

    async def aclose(self) -> None:
        self.log.append(("close", threading.get_ident()))


resource = LoopLocal(Recorder)


async def use_resource() -> int:
    return id(await resource.get())


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, Isolation.THREAD])
def test_resources_are_the_scopes_own(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """D5: runs of a scope share their resources, which are closed at its end, on their loop; others' stay open."""

    async def main() -> None:
        outer = await use_resource()
        Recorder.log.clear()
        async with executor.isolated("analysis_1", isolation=tier) as scope:
            first, second = await scope.run(use_resource), await scope.run(use_resource)
            assert first == second != outer
            assert [what for what, _ in Recorder.log] == ["open"]
        (_, opened_on), (what, closed_on) = Recorder.log
        assert what == "close"
        assert opened_on == closed_on
        assert (opened_on == threading.get_ident()) is (tier is Isolation.CONTEXT)
        assert await use_resource() == outer

    go(main)


def test_scopes(executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """A scope's runs share loop and thread, see each other's tasks, also two at a time; its end ends them."""

    async def main() -> None:
        async with executor.isolated("analysis_2", isolation=tier) as scope:
            assert scope.tier is tier
            await scope.run(work.leak_in_a_foreign_context if tier is not Isolation.CONTEXT else work.leak_tasks)
            places = await asyncio.gather(*(scope.run(work.where) for _ in range(3)))
            assert len(set(places)) == 1
            assert {"foreign", "mine"} & set(await scope.run(work.names_of_tasks))
            with pytest.raises(TimeoutError):
                await scope.run(work.wait_for_ever, timeout=0.1)
            with pytest.raises(work.Refused):
                await scope.run(work.refuse)
        assert {"foreign", "mine"} & {event.task for event in heard(TaskSpilled)}
        with pytest.raises(RuntimeError, match="is not open"):
            await scope.run(work.where)

    go(main)


def test_log_lines_tell_where(executor: IsolationExecutor, go: Any, tier: Isolation, caplog: Any) -> None:
    """D6: tier, context id, thread, pid, loop before and after, as fields and as text."""

    async def main() -> tuple[int, int]:
        return tuple(await executor.run(work.where, isolation=tier, context_id="analysis_3"))  # type: ignore[return-value]

    with caplog.at_level(logging.DEBUG, logger="homeloop"):
        pid, thread_ident = go(main)
    records = [r for r in caplog.records if isinstance(getattr(r, "homeloop", None), IsolatedRunStarted)]
    (record,) = records
    place = record.homeloop.place
    assert (place.tier, place.context_id, place.pid, place.thread_ident) == (
        tier.value,
        "analysis_3",
        pid,
        thread_ident,
    )
    assert place.loop_before.pid == os.getpid()
    assert place.loop_after.pid == pid
    assert (place.loop_before == place.loop_after) is (tier is Isolation.CONTEXT)
    for part in (
        f"[{tier.value} isolation]",
        "'analysis_3'",
        f"pid {pid}",
        f"thread {thread_ident}",
        "loop before",
    ):
        assert part in record.getMessage()
    ended = [r.homeloop for r in caplog.records if isinstance(getattr(r, "homeloop", None), IsolatedRunEnded)]
    assert [event.error for event in ended] == [None]


def test_blocking_is_reported(go: Any, tier: Isolation) -> None:
    """A coroutine that blocks its loop is named with its stack, counted, and on the tiers below stalls nobody."""
    told = threading.Event()
    blocked: list[LoopBlocked] = []

    class Ear:
        def notify(self, event: Event) -> None:
            if isinstance(event, LoopBlocked):
                blocked.append(event)
                told.set()

    remove = add_instrument(Ear())
    try:
        with IsolationExecutor(name="blocked", block_threshold=0.05, max_threads=2) as executor:

            async def main() -> None:
                if tier is not Isolation.PROCESS:
                    await executor.run(wait_on_thread, told, isolation=tier)
                else:
                    await executor.run(work.block, 1.0, isolation=tier)

            go(main)
            assert executor.statistics().tiers[tier].blocked == 1
    finally:
        remove()
    assert blocked[0].tier == tier.value
    assert any("in block" in place or "wait_on_thread" in place for place in blocked[0].blocked_at)


async def wait_on_thread(told: threading.Event) -> None:
    """Block the loop until it has been told."""
    told.wait(30)


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS])
def test_a_blocked_loop_stalls_nobody(go: Any, tier: Isolation, tmp_path: Path) -> None:
    """While one run blocks, others of the same tier and the caller's loop go on."""
    with IsolationExecutor(name="stalled", max_threads=2, max_processes=2) as executor:

        async def main() -> None:
            go_on = tmp_path / "go on"
            blocking = asyncio.ensure_future(executor.run(work.block_until, str(go_on), isolation=tier))
            for number in range(3):
                assert await executor.run(work.identity, number, isolation=tier) == number
            go_on.touch()
            assert await blocking == "blocked"

        go(main)


def test_threads_are_bounded_named_reused_and_end(go: Any) -> None:
    """At most so many threads, with names, served in order; idle ones end."""
    with IsolationExecutor(name="few", max_threads=2, idle_timeout=0.2, block_threshold=0.1) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=Isolation.THREAD)
            places = await asyncio.gather(*(run(work.where) for _ in range(20)))
            assert len({thread for _, thread in places}) <= 2
            names = [thread.name for thread in threading.enumerate() if thread.name.startswith("homeloop-few-")]
            assert 1 <= len(names) <= 2
            await until(lambda: not executor.statistics().tiers[Isolation.THREAD].kept)
            assert await run(work.identity, 1) == 1
            with pytest.raises(TimeoutError, match="waited for its turn"):
                await asyncio.gather(
                    run(work.clean_up_nothing, 0.5), run(work.clean_up_nothing, 0.5), run(work.where, timeout=0.05)
                )

        go(main)
        assert executor.statistics().tiers[Isolation.THREAD].ended >= 1


def test_nested_runs_need_no_further_place(go: Any) -> None:
    """What runs in a tier may wait for runs in the same tier, however few places it has."""
    with IsolationExecutor(name="nested", max_threads=1) as executor:

        async def outer(depth: int) -> int:
            if depth == 0:
                return 0
            return 1 + await executor.run(outer, depth - 1, isolation=Isolation.THREAD, timeout=30)

        async def main() -> int:
            return await executor.run(outer, 3, isolation=Isolation.THREAD)

        assert go(main) == 3


def test_clean_up_without_end(go: Any) -> None:
    """Tasks whose clean-up starts further ones are given up when their time is over."""
    tier = Isolation.PROCESS
    with IsolationExecutor(name="hydra", grace=0.2) as executor:
        go(functools.partial(executor.run, isolation=tier), work.clean_up_for_ever)
        assert executor.statistics().tiers[tier].stubborn >= 1
        work.tasks.clear()
