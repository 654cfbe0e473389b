"""A run that is cancelled or late leaves no callback behind: it has ended when the call returns, or is named."""

import asyncio
from contextlib import aclosing
from typing import Any

import isolated_work as work
import pytest
import reporting_work as reporting
from waiting import until

from homeloop import Isolation, IsolationExecutor, bind_callback
from homeloop._events import CallAbandoned, CallbackFailed
from homeloop.errors import CallTimeoutError

EVERY = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
DEADLINE = 30.0  # seconds; tells a hang from an answer


@pytest.fixture(params=EVERY)
def tier(request: pytest.FixtureRequest) -> Isolation:
    """Every tier."""
    return Isolation(request.param)


class Ear:
    """An async callback that hears one report after the other, each until it may go on."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.ended: list[str] = []
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def __call__(self, step: str, *_: object) -> None:
        self.got.append(step)
        self.begun.set()
        try:
            await self.may_go_on.wait()
        finally:
            await asyncio.sleep(0)
            self.ended.append(step)


def test_a_cancelled_caller_cancels_the_callback(
    executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation
) -> None:
    """The call that runs is cancelled and has cleaned up when the run returns; that is no failure of it."""

    async def main() -> None:
        ear = Ear()
        running = asyncio.ensure_future(executor.run(reporting.report_many, 3, isolation=tier, on_progress=ear))
        await ear.begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (ear.got, ear.ended) == (["step"], ["step"])

    go(main)
    assert heard(CallbackFailed) == heard(CallAbandoned) == []


def test_reports_that_nobody_has_heard_are_left_out(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """Of many reports at a time none begins after the run has returned."""

    async def main() -> None:
        ear = Ear()
        running = asyncio.ensure_future(
            executor.run(reporting.report_at_once, 50, isolation=tier, on_progress=ear)
        )
        await ear.begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        ear.may_go_on.set()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert len(ear.got) == 1

    go(main)


def test_the_clean_up_of_the_work_is_heard(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """Work that is cancelled may report what it does about it; the callback ends after it, not before."""

    async def main() -> None:
        ear = Ear()
        ear.may_go_on.set()
        begun = asyncio.Event()

        async def hear(step: str) -> None:
            await ear(step)
            begun.set()

        run = executor.run(reporting.report_until_cancelled, isolation=tier, on_progress=hear)
        running = asyncio.ensure_future(run)
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ear.ended == ["begun", "cleaning up"]

    go(main)


def test_somebody_elses_callback_is_waited_for(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """A callback that the caller has bound is not cancelled: it runs to its end, and the run waits for that."""

    async def main() -> None:
        ear = Ear()
        run = executor.run(reporting.report_many, 3, isolation=tier, on_progress=bind_callback(ear))
        running = asyncio.ensure_future(run)
        await ear.begun.wait()
        asyncio.get_running_loop().call_later(0.1, ear.may_go_on.set)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ear.may_go_on.is_set()
        assert ear.ended == ["step"]

    go(main)


@pytest.mark.parametrize("bound", [False, True])
def test_what_ignores_that_is_reported(go: Any, heard: Any, tier: Isolation, bound: bool) -> None:
    """A callback that goes on after the grace is left to itself, and named."""

    async def main() -> None:
        begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def deaf(*_: object) -> None:
            begun.set()
            while not may_end.is_set():
                try:
                    await may_end.wait()
                except asyncio.CancelledError:
                    pass
            ended.set()

        callback = bind_callback(deaf) if bound else deaf
        running = asyncio.ensure_future(
            executor.run(reporting.report_many, 1, isolation=tier, on_progress=callback)
        )
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        may_end.set()
        await ended.wait()

    with IsolationExecutor(name="deaf", max_threads=1, max_processes=1, grace=0.2) as executor:
        go(main)
    assert ["deaf()" in event.what for event in heard(CallAbandoned)] == [True]


def test_cancelled_when_only_the_callback_is_waited_for(
    executor: IsolationExecutor, go: Any, tier: Isolation
) -> None:
    """The work has returned, so nothing but the callback is there to be cancelled, and it is."""
    returned: list[str] = []

    async def report_and_return(report: Any) -> None:
        asyncio.ensure_future(report("late"))  # noqa: RUF006 - the point
        await asyncio.sleep(0)
        returned.append("yes")

    async def main() -> None:
        ear = Ear()
        fn = report_and_return if tier is not Isolation.PROCESS else reporting.report_many
        args = () if fn is report_and_return else (1,)
        running = asyncio.ensure_future(executor.run(fn, *args, isolation=tier, on_progress=ear))
        await ear.begun.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ear.got == ear.ended

    go(main)


def test_a_late_callback_is_cancelled(go: Any, heard: Any, tier: Isolation) -> None:
    """When the timeout and the grace are over, the error names the callback, which has ended."""

    async def main() -> None:
        ear = Ear()
        with pytest.raises(CallTimeoutError, match="its callback <BoundCallback .*Ear"):
            await executor.run(reporting.report_many, 3, isolation=tier, timeout=0.3, on_progress=ear)
        assert ear.got == ear.ended

    with IsolationExecutor(name="late", max_threads=1, max_processes=1, grace=0.3) as executor:
        executor.warm(tier)
        go(main)
    assert not any("Ear" in event.what for event in heard(CallAbandoned))


def test_a_stream_that_is_closed_ends_its_callback(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """A callback of a stream that is cancelled while it waits for an item has ended when that returns."""

    async def main() -> None:
        ear = Ear()

        async def iterate() -> None:
            stream = executor.stream(reporting.report_and_yield, isolation=tier, on_progress=ear)
            async with aclosing(stream) as items:
                async for _ in items:
                    pass

        iterating = asyncio.create_task(iterate())
        await ear.begun.wait()
        iterating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await iterating
        assert (ear.got, ear.ended) == (["going on"], ["going on"])

    go(main)


def test_a_stream_whose_time_is_over(go: Any, tier: Isolation) -> None:
    """Who asks for the next item after that gets the error, which names the consumer that was waited for."""

    async def main() -> None:
        stream = executor.stream(work.count_up, 3, isolation=tier, timeout=0.3)
        async with aclosing(stream) as items:
            assert await anext(items) == (0, "generator")
            await until(lambda: not executor.statistics().tiers[tier].in_flight)
            with pytest.raises(CallTimeoutError, match="count_up's consumer"):
                await anext(items)

    with IsolationExecutor(name="over", max_threads=1, max_processes=1, grace=0.1) as executor:
        executor.warm(tier)
        go(main)


def test_a_second_cancellation_does_not_cut_it_short(
    executor: IsolationExecutor, go: Any, tier: Isolation
) -> None:
    """AnyIO cancels again and again: the callback's clean-up is waited for all the same."""

    async def main() -> None:
        ear, cleaning, may_end = Ear(), asyncio.Event(), asyncio.Event()

        async def hear(*_: object) -> None:
            try:
                await ear("step")
            finally:
                cleaning.set()
                await may_end.wait()
                ear.ended.append("cleaned up")

        running = asyncio.ensure_future(executor.run(reporting.report_many, 1, isolation=tier, on_progress=hear))
        await ear.begun.wait()
        running.cancel()
        await cleaning.wait()
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0)
        assert not running.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ear.ended == ["step", "cleaned up"]

    go(main)
