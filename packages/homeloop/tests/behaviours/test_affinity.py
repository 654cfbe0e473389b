"""One loop for all callers, and everything that lives on it stays there."""

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeloop import LoopLocal, LoopRuntime, ResourceStatistics

DEADLINE = 60.0  # seconds; tells a hang from an answer


async def which_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_d01_one_loop_for_two_calls(runtime: LoopRuntime) -> None:
    """Two calls from one thread run on the same, still open, loop."""
    first, second = runtime.run(which_loop), runtime.run(which_loop)
    assert first is second
    assert first.is_running()
    assert not first.is_closed()


def test_d02_one_loop_for_all_threads(runtime: LoopRuntime) -> None:
    """Calls from different threads run on the same loop (shared pools)."""
    together = threading.Barrier(8)

    def call(_: int) -> asyncio.AbstractEventLoop:
        together.wait(DEADLINE)  # eight threads, not one that is quick
        return runtime.run(which_loop)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(call, range(8))) == {runtime.run(which_loop)}


def test_d03_a_connection_outlives_its_call(runtime: LoopRuntime) -> None:
    """TCP connection opened in one call is usable in a later call from another thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader, writer = runtime.run(asyncio.open_connection, *server.getsockname())
        peer, _ = server.accept()

    async def talk() -> bytes:
        writer.write(b"ping\n")
        await writer.drain()
        return await reader.readline()

    async def hang_up() -> None:
        writer.close()
        await writer.wait_closed()

    with peer, ThreadPoolExecutor(1) as other_thread:
        answer = other_thread.submit(runtime.run, talk)
        peer.settimeout(DEADLINE)
        assert peer.recv(5) == b"ping\n"
        peer.sendall(b"pong\n")
        assert answer.result(DEADLINE) == b"pong\n"
        runtime.run(hang_up)


def test_d04_background_tasks_go_on_between_calls(runtime: LoopRuntime) -> None:
    """A background task started in one call makes progress while no call is active."""
    steps, running = threading.Semaphore(0), set()

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(0.001)
            steps.release()

    async def start() -> asyncio.Event:
        gate = asyncio.Event()

        async def background() -> None:
            await gate.wait()
            await work()

        running.add(asyncio.create_task(background()))
        return gate

    gate = runtime.run(start)
    loop = runtime.run(which_loop)
    loop.call_soon_threadsafe(gate.set)
    assert runtime.statistics().in_flight == 0
    for _ in range(3):
        assert steps.acquire(timeout=DEADLINE)


def test_d05_one_lock_for_eight_threads(runtime: LoopRuntime) -> None:
    """One asyncio.Lock shared by calls from 8 threads excludes correctly."""
    lock, inside = asyncio.Lock(), 0

    async def hold() -> int:
        nonlocal inside
        async with lock:
            inside += 1
            await asyncio.sleep(0)
            seen, inside = inside, inside - 1
            return seen

    together = threading.Barrier(8)

    def call(_: int) -> set[int]:
        together.wait(DEADLINE)
        return {runtime.run(hold) for _ in range(25)}

    with ThreadPoolExecutor(8) as threads:
        assert set().union(*threads.map(call, range(8))) == {1}


def test_d06_abandoned_generators_are_closed_at_home(runtime: LoopRuntime) -> None:
    """Abandoned async generator is closed on the loop that iterated it."""
    closed_on: list[asyncio.AbstractEventLoop] = []
    closed = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed_on.append(asyncio.get_running_loop())
            closed.set()

    kept = [numbers()]

    async def first() -> int:
        return await anext(kept[0])

    assert runtime.run(first) == 1
    kept.clear()  # dropped here, on a thread that is not its home
    gc.collect()
    assert closed.wait(DEADLINE)
    assert closed_on == [runtime.run(which_loop)]


def test_d07_one_instance_per_loop(runtime: LoopRuntime) -> None:
    """Per-loop resource registry: one instance per loop, closed on its own loop."""

    class Pool:
        def __init__(self) -> None:
            self.loop, self.closed = asyncio.get_running_loop(), False

        async def aclose(self) -> None:
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is self.loop
            self.closed = True

    local = LoopLocal(Pool)

    async def twice() -> Pool:
        first = await local.get()
        assert await local.get() is first
        assert first.loop is asyncio.get_running_loop()
        assert not first.closed
        return first

    home, one, two = runtime.run(twice), asyncio.run(twice()), asyncio.run(twice())
    assert len({id(pool) for pool in (home, one, two)}) == 3
    assert (home.closed, one.closed, two.closed) == (False, True, True)
    with ThreadPoolExecutor(1) as other_thread:
        assert other_thread.submit(runtime.run, local.get).result(DEADLINE) is home
    runtime.close()
    assert home.closed
    assert local.statistics() == ResourceStatistics(opened=3, closed=3, hits=4, misses=3)


def test_d08_two_runtimes_own_two_loops(runtime: LoopRuntime) -> None:
    """Two portals own two distinct loops."""
    with LoopRuntime(name="other") as other:
        mine, others = runtime.run(which_loop), other.run(which_loop)
        assert mine is not others
        assert runtime.run(which_loop) is mine
        assert other.run(which_loop) is others


def test_d09_foreign_loops_are_refused(runtime: LoopRuntime) -> None:
    """A resource used on a foreign loop is refused with a clear error, not a hang."""

    async def open_all() -> "tuple[asyncio.Event, asyncio.StreamReader, asyncio.Future[None]]":
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        waiting = asyncio.create_task(event.wait())  # it is bound to a loop when it first waits
        await asyncio.sleep(0)
        waiting.cancel()
        return event, asyncio.StreamReader(loop=loop), loop.create_future()

    event, reader, future = runtime.run(open_all)

    async def wait_for_future() -> None:
        await future

    with LoopRuntime(name="foreign") as foreign:
        for use in (event.wait, reader.read, wait_for_future):
            with pytest.raises(RuntimeError, match=r"different (event )?loop"):
                foreign.run(use, timeout=DEADLINE)
