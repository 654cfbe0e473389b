"""Many callers at once: they overlap, keep apart, and leave nothing behind."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer

OPEN_FILES = Path("/dev/fd")


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


def test_e01_twenty_threads_overlap(runtime: LoopRuntime) -> None:
    """20 threads x 0.2 s overlap."""
    everybody = asyncio.Barrier(20)

    async def meet() -> None:
        await everybody.wait()  # only when all twenty are inside at once
        await asyncio.sleep(0.2)

    with ThreadPoolExecutor(20) as threads:
        calls = [threads.submit(runtime.run, meet, timeout=DEADLINE) for _ in range(20)]
        for call in calls:
            call.result(2 * DEADLINE)


def test_e02_no_cross_talk(runtime: LoopRuntime) -> None:
    """400 short calls from 8 threads: no cross-talk."""
    together = threading.Barrier(8)

    def caller(number: int) -> bool:
        together.wait(DEADLINE)
        things = [(number, i) for i in range(50)]
        return all(runtime.run(identity, thing) is thing for thing in things)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(caller, range(8)))
    assert runtime.statistics().finished == 400


def test_e03_threads_do_not_pile_up(runtime: LoopRuntime) -> None:
    """100 sequential calls do not grow the number of threads."""
    runtime.run(identity, 0)
    before = threading.active_count()
    for i in range(100):
        runtime.run(identity, i)
    assert threading.active_count() == before


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="needs a list of the open descriptors")
def test_e04_descriptors_do_not_pile_up(runtime: LoopRuntime) -> None:
    """60 calls, each from a new thread, do not grow open fds."""

    def call_from_a_new_thread() -> None:
        thread = threading.Thread(target=runtime.run, args=(identity, 1))
        thread.start()
        thread.join(DEADLINE)
        assert not thread.is_alive()

    call_from_a_new_thread()
    before = len(os.listdir(OPEN_FILES))  # noqa: PTH208 - a closed descriptor has no path to look at
    for _ in range(60):
        call_from_a_new_thread()
    assert len(os.listdir(OPEN_FILES)) <= before  # noqa: PTH208


def test_e05_a_blocked_runtime_blocks_no_other(runtime: LoopRuntime) -> None:
    """A blocked portal does not stall another portal."""
    blocked, release = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        release.wait(DEADLINE)

    with LoopRuntime(name="blocked") as other:
        try:
            blocking = other.submit(block)
            assert blocked.wait(DEADLINE)
            for i in range(10):
                assert runtime.run(identity, i, timeout=DEADLINE) == i
            assert not blocking.done()
        finally:
            release.set()


def test_e06_a_race_for_the_first_call(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """16 threads racing on the first call all succeed."""
    together = threading.Barrier(16)
    switching = sys.getswitchinterval()

    async def which_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def caller(_: int) -> asyncio.AbstractEventLoop:
        together.wait(DEADLINE)
        return runtime.run(which_loop, timeout=DEADLINE)

    sys.setswitchinterval(1e-5)  # seconds: threads interleave wherever they can
    try:
        for _ in range(5):
            runtime = LoopRuntime(name="race", loop_factory=loop_factory)
            try:
                with ThreadPoolExecutor(16) as threads:
                    assert set(threads.map(caller, range(16))) == {runtime.run(which_loop)}
            finally:
                runtime.close()
    finally:
        sys.setswitchinterval(switching)
