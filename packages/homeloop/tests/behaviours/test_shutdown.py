"""The end, of a runtime or the interpreter: work is drained, late calls are answered, nothing hangs."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeloop import LoopRuntime
from homeloop.errors import RuntimeDiedError

DEADLINE = 60.0  # seconds; tells a hang from an answer


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


def test_i01_run_once_and_leave(scenario) -> None:
    """run() once and leave: exit 0 within 3 s, no stderr noise."""
    assert scenario("print(homeloop.run(identity, 1))") == ["1"]


BACKGROUND = """
kept = []
async def background():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up on", asyncio.get_running_loop() is kept[0])
async def start():
    kept[:] = asyncio.get_running_loop(), asyncio.create_task(background())
    await asyncio.sleep(0)
homeloop.run(start)
print("leaving")
"""


def test_i02_exit_with_a_background_task(scenario) -> None:
    """Background task left running: process still exits, no noise."""
    assert scenario(BACKGROUND)[0] == "leaving"


def test_i03_exit_drains_a_background_task(scenario) -> None:
    """Background task left running: its async finally runs at exit (drain)."""
    assert scenario(BACKGROUND) == ["leaving", "cleaned up on True"]


def test_i04_exit_with_submitted_work(scenario) -> None:
    """Submitted work pending at exit: bounded exit, its finally runs."""
    printed = scenario(
        """
started = threading.Event()
async def work():
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up")
future = homeloop.submit(work)
started.wait(30)
print("leaving")
"""
    )
    assert printed == ["leaving", "cleaned up"]


def test_i05_run_from_atexit(scenario) -> None:
    """run() from an atexit handler works."""
    printed = scenario(
        """
homeloop.run(identity, None)
atexit.register(lambda: print(homeloop.run(identity, "at exit")))
"""
    )
    assert printed == ["at exit"]


def test_i06_run_from_an_early_atexit_handler(scenario) -> None:
    """run() from an atexit handler registered BEFORE the bridge started works or raises, no hang."""
    printed = scenario(
        """
def late():
    try: print(homeloop.run(identity, "at exit"))
    except RuntimeClosedError as error: print(error)
    gc.collect()
atexit.register(late)
homeloop.run(identity, None)
"""
    )
    assert printed == ["runtime 'homeloop' is closed; open another one"]


LATE_FINALIZER = """
class Late:
    # Defaults, because the names of a module may be gone when it is torn down.
    def __del__(self, run=homeloop.run, fn=identity, refused=LifecycleError, write=os.write):
        try: write(1, run(fn, b"ran"))
        except refused as error: write(1, type(error).__name__.encode())
late = Late()
late.itself = late  # a cycle, so that it lives until the interpreter is finalized
"""


def test_i07_run_from_a_late_finalizer(scenario) -> None:
    """run() from __del__ during interpreter finalization: no hang."""
    for used in ("", "homeloop.run(identity, None)\n"):
        printed = scenario(used + LATE_FINALIZER)
        assert printed in (["RuntimeClosedError"], ["RuntimeDiedError"])


def test_i08_exit_under_a_hail_of_calls(scenario) -> None:
    """Daemon thread hammering run() while the interpreter exits: no hang, no crash."""
    printed = scenario(
        """
going = threading.Barrier(5)
def hammer():
    homeloop.run(identity, None)
    going.wait(30)
    try:
        while True: homeloop.run(identity, None)
    except LifecycleError: pass
for _ in range(4): threading.Thread(target=hammer, daemon=True).start()
going.wait(30)
print("leaving")
"""
    )
    assert printed == ["leaving"]


def test_i09_a_thread_that_outlives_the_main_thread(scenario) -> None:
    """A non-daemon thread calling run() after the main thread ended still works."""
    printed = scenario(
        """
homeloop.run(identity, None)
def late():
    threading.main_thread().join()
    print(homeloop.run(identity, "late"))
threading.Thread(target=late).start()
"""
    )
    assert printed == ["late"]


def test_i10_close_is_idempotent(scenario) -> None:
    """close() is idempotent; run() afterwards: error or restart, no hang, no un-awaited coroutine."""
    printed = scenario(
        """
runtime = LoopRuntime(name="mine")
runtime.run(identity, None)
for _ in range(3): runtime.close()
for call in (runtime.run, runtime.submit, lambda *args: asyncio.run(runtime.arun(*args))):
    try: call(identity, 1)
    except RuntimeClosedError as error: print(error)
homeloop.run(identity, None)
for _ in range(3): homeloop.default_runtime().close()
print(homeloop.run(identity, "the default runtime starts anew"))
gc.collect()
"""
    )
    assert printed == ["runtime 'mine' is closed; open another one"] * 3 + ["the default runtime starts anew"]


def test_i11_close_awaits_pending_work(runtime: LoopRuntime) -> None:
    """close() cancels/awaits pending work so that its finally has run."""
    started, cleaned, kept = threading.Semaphore(0), [], []

    async def wait_for_ever(who: str) -> None:
        started.release()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(who)

    async def start() -> None:
        kept.append(asyncio.create_task(wait_for_ever("background")))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(runtime.run, wait_for_ever, "run")
        submitted = runtime.submit(wait_for_ever, "submit")
        runtime.run(start)
        for _ in range(3):
            assert started.acquire(timeout=DEADLINE)
        runtime.close()
        assert sorted(cleaned) == ["background", "run", "submit"]
        assert kept[0].cancelled()
        for waiting in (running, submitted):
            with pytest.raises(RuntimeDiedError, match="it was closed"):
                waiting.result(DEADLINE)


def test_i12_close_closes_generators(runtime: LoopRuntime) -> None:
    """close() closes suspended async generators on their loop."""
    closed_on: list[asyncio.AbstractEventLoop] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            closed_on.append(asyncio.get_running_loop())

    suspended = numbers()

    async def start() -> asyncio.AbstractEventLoop:
        await anext(suspended)
        return asyncio.get_running_loop()

    loop = runtime.run(start)
    runtime.close()
    assert closed_on == [loop]


def test_i13_a_global_runtime_that_is_never_closed(scenario) -> None:
    """Bridge held in a module global and never closed: process exits (portal finalizers run late)."""
    printed = scenario(
        """
runtime = LoopRuntime(name="global")
runtime.itself = runtime  # a cycle, so that it lives until the interpreter is finalized
print(runtime.run(identity, 1))
"""
    )
    assert printed == ["1"]
