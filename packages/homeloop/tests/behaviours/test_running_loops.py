"""Sync calls made where a loop is running already: on it, on worker threads of it, and from within the runtime."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError

DEADLINE = 60.0  # seconds; tells a hang from an answer

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


def test_c01_on_a_running_loops_thread(scenario) -> None:
    """
    Sync call on a thread whose loop runs: result or prompt RuntimeError, no hang, no coroutine object,
    no warnings.
    """
    printed = scenario(
        """
async def main(): return homeloop.run(identity, "result")
print(asyncio.run(main()))
gc.collect()
"""
    )
    assert printed == ["result"]


def test_c02_a_notebook_gets_the_result(runtime: LoopRuntime, loop_factory: LoopFactory) -> None:
    """Same, and it really returns the result (Jupyter cell, FastAPI sync helper)."""

    def helper(thing: object) -> object:
        return runtime.run(identity, thing)

    async def cell(thing: object) -> object:
        return helper(thing)

    async def endpoint(thing: object) -> object:
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: answer.set_result(helper(thing)))
        return await answer

    kernel = loop_factory()
    try:
        for thing in (object(), object()):
            assert kernel.run_until_complete(cell(thing)) is thing
            assert kernel.run_until_complete(endpoint(thing)) is thing
    finally:
        kernel.close()


def test_c03_the_host_loop_is_intact(runtime: LoopRuntime, loop_factory: LoopFactory) -> None:
    """The host loop is intact afterwards (current_task, timeouts, timers)."""

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        timer = asyncio.Event()
        loop.call_later(0.01, timer.set)
        assert runtime.run(identity, 1) == 1
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        await asyncio.wait_for(timer.wait(), DEADLINE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        assert await asyncio.gather(identity(1), asyncio.to_thread(int, "2")) == [1, 2]

    with asyncio.Runner(loop_factory=loop_factory) as host:
        host.run(main())


def test_c04_on_the_runtimes_own_thread(scenario) -> None:
    """Re-entrant call on the bridge's own loop thread: result or prompt error."""
    printed = scenario(
        """
async def reenter():
    try: homeloop.run(identity, 1)
    except WrongThreadError as error: print(error)
homeloop.run(reenter)
print(homeloop.run(identity, "usable"))
gc.collect()
"""
    )
    assert printed == [
        "run() on the loop's own thread 'homeloop' would wait for itself; await instead",
        "usable",
    ]


def test_c05_a_sandwich(runtime: LoopRuntime) -> None:
    """Sandwich run -> to_thread -> run works."""

    async def outer() -> object:
        return await asyncio.to_thread(runtime.run, identity, "filling")

    assert runtime.run(outer, timeout=DEADLINE) == "filling"


def test_c06_five_levels(runtime: LoopRuntime) -> None:
    """Five-level sandwich works."""

    async def level(depth: int) -> int:
        if depth == 1:
            return 1
        return 1 + await asyncio.to_thread(runtime.run, level, depth - 1)

    assert runtime.run(level, 5, timeout=DEADLINE) == 5


def test_c07_the_runtimes_own_executor(runtime: LoopRuntime) -> None:
    """Same with the system's own to_thread primitive."""

    async def level(depth: int) -> int:
        if depth == 1:
            return 1
        loop = asyncio.get_running_loop()
        return 1 + await loop.run_in_executor(None, runtime.run, level, depth - 1)

    assert runtime.run(level, 5, timeout=DEADLINE) == 5


def test_c08_forty_callers_of_one_host_loop(runtime: LoopRuntime, loop_factory: LoopFactory) -> None:
    """40 threadpool callers of one host loop all finish (FastAPI threadpool)."""
    callers = 40
    everybody = asyncio.Barrier(callers)

    async def meet(number: int) -> int:
        await everybody.wait()  # only when all forty are inside at once
        return number

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(callers) as threadpool:
            calls = [loop.run_in_executor(threadpool, runtime.run, meet, i) for i in range(callers)]
            return await asyncio.wait_for(asyncio.gather(*calls), DEADLINE)

    with asyncio.Runner(loop_factory=loop_factory) as host:
        assert host.run(main()) == list(range(callers))


def test_c09_the_pool_does_not_starve(scenario) -> None:
    """Pool starvation: 40 x (run -> to_thread -> run -> to_thread) finishes or errors, no silent deadlock."""
    printed = scenario(
        """
everybody = asyncio.Barrier(40)
async def outer(number):
    await everybody.wait()  # so that all forty ask for a thread before the first inner one does
    return await asyncio.to_thread(homeloop.run, inner, number)
async def inner(number):
    return await asyncio.to_thread(int, number)
with concurrent.futures.ThreadPoolExecutor(40) as threads:
    calls = [threads.submit(homeloop.run, outer, number) for number in range(40)]
    print([call.result(30) for call in calls] == list(range(40)))
"""
    )
    assert printed == ["True"]


def test_c10_a_coroutine_that_needs_the_blocked_loop(runtime: LoopRuntime, loop_factory: LoopFactory) -> None:
    """Coroutine needs the caller's blocked loop: timeout (or refusal) ends it."""

    async def main() -> None:
        host = asyncio.get_running_loop()

        async def need_the_host() -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), host))

        with pytest.raises(CallTimeoutError, match="its clean-up has run"):
            runtime.run(need_the_host, timeout=0.1)
        assert await runtime.arun(identity, 1) == 1

    with asyncio.Runner(loop_factory=loop_factory) as host:
        host.run(main())


def _on_a_running_uvloop(runtime: LoopRuntime) -> object:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> object:
        assert type(asyncio.get_running_loop()) is uvloop.Loop
        return runtime.run(identity, "result", timeout=DEADLINE)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as host:
        return host.run(main())


def test_c11_on_a_running_uvloop_loop(runtime: LoopRuntime, recwarn: pytest.WarningsRecorder) -> None:
    """Called on a running uvloop loop: result or prompt RuntimeError."""
    threads = threading.active_count()
    assert _on_a_running_uvloop(runtime) is not None
    assert threading.active_count() == threads
    assert not recwarn.list


def test_c12_a_running_uvloop_loop_gets_the_result(runtime: LoopRuntime) -> None:
    """Called on a running uvloop loop: returns the result."""
    assert _on_a_running_uvloop(runtime) == "result"
