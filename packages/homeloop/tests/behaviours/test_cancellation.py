"""Whoever stops waiting, and however, the coroutine is cancelled and cleaned up, and then the waiter goes on."""

import asyncio
import concurrent.futures
import ctypes
import sys
import threading

import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer

SIGNALLED = """
class Limit(BaseException): pass
def over(*_): raise Limit
if EXPECTED == "Limit": signal.signal(signal.SIGINT, over)
handler = signal.getsignal(signal.SIGINT)

async def wait_for_ever():
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up")

try:
    homeloop.run(wait_for_ever)
except (KeyboardInterrupt, Limit) as error:
    print("raised", type(error).__name__)
assert signal.getsignal(signal.SIGINT) is handler
print(homeloop.run(identity, "usable"))
"""


WORKER_WAITS = """
started, cleaned = threading.Event(), threading.Event()

async def inner():
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        cleaned.set()
"""


def test_h01_cancelling_a_submitted_future(runtime: LoopRuntime) -> None:
    """Cancelling a submitted future cancels the coroutine."""
    started, cleaned = threading.Event(), threading.Event()

    async def wait_for_ever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    future = runtime.submit(wait_for_ever)
    assert started.wait(DEADLINE)
    assert future.cancel()
    assert future.cancel(), "it is cancelled, however often one asks"
    assert future.cancelled()
    assert cleaned.wait(DEADLINE)


def test_h02_cancelled_before_it_started(runtime: LoopRuntime) -> None:
    """A future cancelled before it started never starts / is not left running."""
    blocked, gate, ran = threading.Event(), threading.Event(), []

    async def block() -> None:
        blocked.set()
        gate.wait(DEADLINE)

    async def note() -> None:
        ran.append(True)

    blocking = runtime.submit(block)
    assert blocked.wait(DEADLINE)
    queued = runtime.submit(note)
    assert queued.cancel()
    gate.set()
    blocking.result(DEADLINE)
    runtime.run(asyncio.sleep, 0)  # queued behind it
    assert ran == []
    assert runtime.statistics().in_flight == 0


def test_h03_ctrl_c_is_raised(scenario) -> None:
    """SIGINT while blocked in run(): KeyboardInterrupt within 1.5 s."""
    printed = scenario("EXPECTED = 'KeyboardInterrupt'" + SIGNALLED)
    assert printed[-2:] == ["raised KeyboardInterrupt", "usable"]


def test_h04_ctrl_c_cleans_up_first(scenario) -> None:
    """SIGINT: the coroutine was cancelled and cleaned up before run() raised."""
    printed = scenario("EXPECTED = 'KeyboardInterrupt'" + SIGNALLED)
    assert printed[:2] == ["cleaned up", "raised KeyboardInterrupt"]


def test_h05_a_signal_handlers_exception_is_raised(scenario) -> None:
    """Signal handler raising (Celery soft time limit) while blocked in run(): exception delivered promptly."""
    printed = scenario("EXPECTED = 'Limit'" + SIGNALLED)
    assert printed[-2:] == ["raised Limit", "usable"]


def test_h06_a_signal_handlers_exception_cleans_up_first(scenario) -> None:
    """Signal handler raising: coroutine cancelled and cleaned up before run() raised."""
    printed = scenario("EXPECTED = 'Limit'" + SIGNALLED)
    assert printed[:2] == ["cleaned up", "raised Limit"]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="injects an exception through CPython's API")
def test_h07_an_injected_exception(runtime: LoopRuntime) -> None:
    """
    Exception injected into the blocked thread (PyThreadState_SetAsyncExc) is seen within 2 s and cancels
    the coroutine.
    """

    class InjectedError(Exception):
        pass

    started, cleaned, outcome = threading.Event(), threading.Event(), []

    async def wait_for_ever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    def caller() -> None:
        try:
            runtime.run(wait_for_ever)
        except InjectedError:
            outcome.append(cleaned.is_set())

    thread = threading.Thread(target=caller)
    thread.start()
    assert started.wait(DEADLINE)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(InjectedError))
    thread.join(DEADLINE)
    assert outcome == [True]


def test_h08_a_cancelled_callers_worker(scenario) -> None:
    """
    Async caller cancelled while its worker thread is in run(): the coroutine is cancelled (native
    to_thread).
    """
    printed = scenario(
        WORKER_WAITS
        + """
async def outer(): await asyncio.to_thread(homeloop.run, inner)
future = homeloop.submit(outer)
assert started.wait(30)
future.cancel()
print(cleaned.wait(30), homeloop.run(identity, "usable"))
"""
    )
    assert printed == ["True usable"]


def test_h09_waiters_see_a_cancelled_future(runtime: LoopRuntime) -> None:
    """concurrent.futures.wait/as_completed see a cancelled submitted future as done."""
    started = threading.Event()

    async def wait_for_ever() -> None:
        started.set()
        await asyncio.Event().wait()

    future = runtime.submit(wait_for_ever)
    assert started.wait(DEADLINE)
    future.cancel()
    assert concurrent.futures.wait([future], timeout=DEADLINE) == ({future}, set())
    assert list(concurrent.futures.as_completed([future], timeout=DEADLINE)) == [future]
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(DEADLINE)


def test_h10_a_cancel_scopes_worker(scenario) -> None:
    """Same, when the caller is cancelled through an AnyIO cancel scope."""
    printed = scenario(
        WORKER_WAITS
        + """
import anyio, anyio.to_thread
from functools import partial

async def outer():
    async with anyio.create_task_group() as group:
        group.start_soon(partial(anyio.to_thread.run_sync, homeloop.run, inner, abandon_on_cancel=False))
        assert await asyncio.to_thread(started.wait, 30)
        group.cancel_scope.cancel()
    # AnyIO waits for its thread, whatever is cancelled: here it has come back.
    return cleaned.is_set()

print(homeloop.run(outer, timeout=30), homeloop.run(identity, "usable"))
"""
    )
    assert printed == ["True usable"]


def test_a_main_thread_that_waits_imports_nothing(script) -> None:
    """What a signal handler raises there might strike the import, and come out as an ImportError, or worse."""
    done = script(
        """
        import asyncio, signal, sys
        import anyio.to_thread
        import homeloop

        class Limit(Exception): pass

        class Struck:
            def find_spec(self, name, path=None, target=None):
                raise ImportError(f"struck while {name} was imported")

        def over(*_): raise Limit
        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, 1.5)  # it looks every half a second
        sys.meta_path.insert(0, Struck())
        try:
            homeloop.run(asyncio.Event().wait)
        except Limit:
            print("Limit")
        finally:
            sys.meta_path.pop(0)
        """
    )
    assert (done.stdout, done.stderr) == ("Limit\n", "")
