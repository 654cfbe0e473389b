"""Progress arrives on the caller's loop, in order, whole, before the call returns; the same on every tier."""

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import isolated_work as work
import pytest
import reporting_work as reporting

from homeloop import Isolation, IsolationExecutor, bind_callback, current_report
from homeloop._events import CallAbandoned, CallbackFailed
from homeloop.errors import CallTimeoutError, WorkerDiedError

EVERY = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
DEADLINE = 60.0


@pytest.fixture(params=EVERY)
def tier(request: pytest.FixtureRequest) -> Isolation:
    """Every tier."""
    return Isolation(request.param)


def test_order_loop_and_context(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """An async callback runs on the caller's loop and in its context, in order, and the last one is waited for."""
    got: list[tuple[Any, ...]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        work.tenant.set("caller's")

        async def hear(step: str, percent: float, description: str) -> None:
            await asyncio.sleep(0.001)
            assert asyncio.get_running_loop() is loop
            got.append((step, percent, description, work.tenant.get(), threading.get_ident()))

        assert await executor.run(reporting.report_many, 20, isolation=tier, on_progress=hear) == 20

    go(main)
    assert got == [("step", n, "going on", "caller's", threading.get_ident()) for n in range(20)]


def test_who_gets_a_report(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """A needed ``report`` is always there, an optional one where somebody listens; deep code finds it, too."""
    got: list[tuple[Any, ...]] = []

    def hear(*args: Any) -> None:
        got.append(args)

    async def main() -> None:
        run = functools.partial(executor.run, isolation=tier)
        assert await run(reporting.report_many, 1) == 1
        assert not await run(reporting.report_optionally)
        assert await run(reporting.report_optionally, on_progress=hear)
        assert await run(reporting.report_optionally, None, on_progress=hear) is False
        assert await run(functools.partial(reporting.report_optionally, report=None), on_progress=hear) is False
        await run(reporting.report_from_deep_inside, on_progress=hear)
        await run(reporting.report_from_deep_inside)
        await current_report()("nobody", 0.0)

    go(main)
    assert got == [("node", 50.0, "half")]


def test_errors_of_the_callback(executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """They are reported and the work goes on; by choice they are raised where the work reports."""

    def refuse(*_: Any) -> None:
        raise work.Refused("progress", 3)

    async def main() -> None:
        assert await executor.run(reporting.report_many, 2, isolation=tier, on_progress=refuse) == 2
        with pytest.raises(work.Refused) as caught:
            await executor.run(
                reporting.report_many, 2, isolation=tier, on_progress=bind_callback(refuse, on_error="raise")
            )
        assert caught.value.code == 3

    go(main)
    assert len(heard(CallbackFailed)) == 3


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS], indirect=True)
def test_ten_thousand_events(executor: IsolationExecutor, tier: Isolation) -> None:
    """None of 10,000 is lost, and they keep their order."""
    got: list[float] = []

    async def main() -> None:
        await executor.run(
            reporting.report_at_once,
            10_000,
            isolation=tier,
            on_progress=lambda _s, percent, _d: got.append(percent),
        )

    asyncio.run(main())
    assert got == list(range(10_000))


def test_only_the_latest_counts(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """With ``coalesce="latest"`` a slow callback sees some, in order, and exactly the last one at the end."""
    got: list[float] = []

    async def hear(_step: str, percent: float, _description: str) -> None:
        await asyncio.sleep(0.01)
        got.append(percent)

    async def main() -> None:
        latest = bind_callback(hear, coalesce="latest")
        assert await executor.run(reporting.report_many, 2_000, isolation=tier, on_progress=latest) == 2_000

    go(main)
    assert got[-1] == 1_999
    assert got == sorted(set(got))
    assert len(got) < 1_000


@pytest.mark.parametrize("coalesce", ["none", "latest"])
def test_a_callback_that_hangs(go: Any, heard: Any, tier: Isolation, coalesce: Any) -> None:
    """The timeout bounds the wait for the callback, too: the error names it, and it is reported."""

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        run = functools.partial(executor.run, isolation=tier, on_progress=bind_callback(hang, coalesce=coalesce))
        with pytest.raises(CallTimeoutError) as caught:
            await run(reporting.report_many, 3, timeout=0.3)
        assert "its callback <BoundCallback" in str(caught.value)
        assert "hang()" in str(caught.value)
        assert await executor.run(work.identity, 1, isolation=tier, timeout=DEADLINE) == 1

    with IsolationExecutor(name="hanging", max_threads=1, max_processes=1, grace=0.3) as executor:
        executor.warm(tier)
        go(main)
    assert any("hang()" in event.what for event in heard(CallAbandoned))


class Unspeakable:
    """Something to report that has no text."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def test_what_is_reported_need_not_have_a_text(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """Only an error tells what was reported last, and then says if it cannot."""
    got: list[Any] = []

    async def main() -> None:
        await executor.run(reporting.report_something, Unspeakable(), isolation=tier, on_progress=got.append)
        if tier is Isolation.PROCESS:
            with pytest.raises(WorkerDiedError, match=r"its last progress was <.*ValueError"):
                await executor.run(
                    reporting.report_something, Unspeakable(), True, isolation=tier, on_progress=got.append
                )

    go(main)
    assert type(got[0]) is Unspeakable


@pytest.mark.parametrize("tier", [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD], indirect=True)
def test_functions_are_not_kept(executor: IsolationExecutor, tier: Isolation) -> None:
    """Whether a function takes a report is not remembered for longer than the function is there."""

    def one(held: object) -> "weakref.ref[Any]":
        async def with_report(report: Any) -> object:
            return held

        async def without() -> object:
            return held

        async def main() -> None:
            await executor.run(with_report, isolation=tier)
            await executor.run(without, isolation=tier)

        asyncio.run(main())
        return weakref.ref(held)

    ref = one(Unspeakable())
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("tier", [Isolation.PROCESS], indirect=True)
def test_back_pressure(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """Work that reports waits for the callback, so it is never ahead of it."""
    under_way: list[int] = []

    async def hear(_step: str, _percent: float, _description: str) -> None:
        under_way.append(1)
        assert len(under_way) == 1
        await asyncio.sleep(0)
        under_way.pop()

    async def main() -> None:
        await executor.run(
            reporting.report_many, 50, isolation=tier, on_progress=bind_callback(hear, on_error="raise")
        )

    go(main)


def test_coalescing_from_threads() -> None:
    """Whoever calls, from however many threads, the callback's last run is the last call."""
    got: list[int] = []

    async def main() -> None:
        callback = bind_callback(got.append, coalesce="latest")

        def chatter() -> None:
            for number in range(1_000):
                callback(number)

        await asyncio.gather(*(asyncio.to_thread(chatter) for _ in range(4)))
        await callback(-1)

    asyncio.run(main())
    assert got[-1] == -1


def test_from_greenlets(script: Callable[..., Any]) -> None:
    """Progress of a worker process reaches a greenlet's callback; other greenlets go on meanwhile."""
    pytest.importorskip("gevent")
    ended = script(
        f"""
        from gevent import monkey
        monkey.patch_all()
        import sys
        sys.path.insert(0, {work.__file__.rpartition("/")[0]!r})
        import gevent, reporting_work as reporting, homeloop
        from homeloop import Isolation

        def one(number):
            got = []
            count = homeloop.run_isolated_sync(
                reporting.report_many, 5, isolation=Isolation.PROCESS, on_progress=lambda *a: got.append(a[1])
            )
            return count, got

        jobs = [gevent.spawn(one, number) for number in range(4)]
        gevent.joinall(jobs, timeout=50, raise_error=True)
        print([job.value for job in jobs] == [(5, [0, 1, 2, 3, 4])] * 4)
        homeloop.default_executor().close()
        """,
        timeout=DEADLINE,
    )
    assert ended.stdout.split() == ["True"], ended.stderr
