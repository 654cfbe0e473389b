"""How loops and waiting threads are woken: by descriptors where there are any, else without."""

import asyncio
import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from homeloop import LoopRuntime
from homeloop.runtime._waiting import new_waiter

DEADLINE = 20.0  # seconds: tells a hang from an answer
OPEN_FILES = Path("/proc/self/fd")


async def identity(thing: object) -> object:
    return thing


def open_files() -> int:
    return len(os.listdir(OPEN_FILES))  # noqa: PTH208 - a closed descriptor has no path to look at


def test_a_loop_without_readers_is_woken_too() -> None:
    """As Windows's own loop, which knows no add_reader()."""

    class NoReaders(asyncio.SelectorEventLoop):
        def add_reader(self, *_: object) -> None:
            raise NotImplementedError

    with LoopRuntime(name="no-readers", loop_factory=NoReaders) as runtime:
        assert runtime.run(identity, 1, timeout=DEADLINE) == 1
        assert [runtime.submit(identity, i).result(DEADLINE) for i in range(100)] == list(range(100))


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="needs a list of the open descriptors")
def test_a_closed_runtime_gives_its_descriptors_back_at_once(runtime: LoopRuntime) -> None:
    """Without the garbage collector."""

    runtime.run(identity, 1)
    before = open_files()
    gc.disable()
    try:
        for factory in (asyncio.new_event_loop, runtime._loop_factory):
            with LoopRuntime(name="short", loop_factory=factory) as short:
                short.run(identity, 1)
                assert open_files() > before
            assert open_files() == before
    finally:
        gc.enable()


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="needs a list of the open descriptors")
def test_any_number_of_threads_may_wait_and_they_take_few_descriptors(runtime: LoopRuntime) -> None:
    """A hundred threads that wait at the same time get their own results, on 32 descriptors at most."""
    threads, meet = 100, asyncio.Event()

    async def arrive(number: int) -> int:
        if runtime.statistics().in_flight == threads + 1:
            meet.set()
        await meet.wait()
        return number

    async def count() -> int:
        await meet.wait()
        return open_files()

    before = open_files()
    counted = runtime.submit(count)
    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(lambda number: runtime.run(arrive, number), range(threads))) == list(range(threads))
    assert counted.result(DEADLINE) <= before + 32


def test_a_late_answer_wakes_nobody_else() -> None:
    """What a thread waited on in vain is not waited on again: its answer may still come."""
    in_vain = new_waiter()
    assert not in_vain.wait(0.0)
    another = new_waiter()
    in_vain.wake()
    assert not another.wait(0.0)
    another.wake()
    assert another.wait(DEADLINE)


@pytest.mark.skipif(sys.platform != "linux", reason="knows how many descriptors a loop takes")
def test_a_process_with_no_descriptor_to_spare_can_run(script) -> None:  # type: ignore[no-untyped-def]
    """What wakes with a descriptor wakes without it when there is none."""
    ended = script(
        """
import asyncio, os, resource
import homeloop
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print([homeloop.run(asyncio.sleep, 0, i, timeout=30) for i in range(3)])  # the loop has taken all three
try: os.dup(0)
except OSError as error: print(error.strerror)
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "[0, 1, 2]\nToo many open files\n"), ended.stderr


def test_a_post_that_is_interrupted_strands_nobody(runtime: LoopRuntime) -> None:
    """Whoever relied on the interrupted wake-up is woken, and the interrupted call never runs."""
    home = runtime._running_home()
    ring, others, ran = home._ring, [], []

    async def run(what: int) -> int:
        ran.append(what)
        return what

    def interrupted() -> None:
        home._ring = ring
        another = threading.Thread(target=lambda: others.append(runtime.submit(run, 2)))  # it finds the loop woken
        another.start()
        another.join()
        raise KeyboardInterrupt

    home._ring = interrupted
    with pytest.raises(KeyboardInterrupt):
        runtime.submit(run, 1)
    assert others[0].result(20) == 2
    assert ran == [2]
