"""Answers reach their callers whatever strikes between two steps: handlers, callbacks, injected exceptions."""

import asyncio
import sys
import threading

import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer


def test_a_signal_handler_that_calls_run_while_run_wakes_the_loop() -> None:
    """Between the note that somebody rings and the ring itself: the handler's call rings for itself."""
    with LoopRuntime(name="rung") as runtime:
        runtime.start()
        home, answers = runtime._home, []
        assert home is not None
        ring = home._ring

        def handler_strikes_first() -> None:
            home._ring = ring
            answers.append(runtime.run(asyncio.sleep, 0, "handler", timeout=DEADLINE))
            ring()

        home._ring = handler_strikes_first
        answers.append(runtime.run(asyncio.sleep, 0, "caller", timeout=DEADLINE))
    assert answers == ["handler", "caller"]


def test_a_burst_of_calls_costs_one_wake_up() -> None:
    """However many are posted before the loop looks."""
    begun, may = threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        may.wait(DEADLINE)

    with LoopRuntime(name="burst") as runtime:
        blocked = runtime.submit(block)
        assert begun.wait(DEADLINE)
        home, rings = runtime._home, []
        assert home is not None
        ring = home._ring
        home._ring = lambda: (rings.append(None), ring())
        submitted = [runtime.submit(asyncio.sleep, 0) for _ in range(100)]
        may.set()
        for future in (blocked, *submitted):
            future.result(DEADLINE)
    assert len(rings) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_done_callback_that_ends_the_process_costs_no_place() -> None:
    """Nor the turn of those who wait, or were posted, behind it."""
    gate = threading.Event()

    async def wait() -> None:
        await asyncio.to_thread(gate.wait, DEADLINE)

    with LoopRuntime(name="placed", max_in_flight=1) as runtime:
        futures = [runtime.submit(wait) for _ in range(3)]
        for future in (futures[0], futures[2]):
            future.add_done_callback(lambda _: sys.exit(3))
        futures[1].cancel()
        gate.set()
        assert runtime.run(asyncio.sleep, 0, "mine", timeout=DEADLINE) == "mine"
        assert runtime.statistics().in_flight == 0


def test_a_done_callback_that_ends_the_process_is_told_of_once(script) -> None:  # type: ignore[no-untyped-def]
    """By the runtime; asyncio does not tell it again when the task is collected."""
    ended = script(
        """
import asyncio, gc, homeloop, sys, threading
gate = threading.Event()
with homeloop.LoopRuntime() as runtime:
    future = runtime.submit(asyncio.to_thread, gate.wait)
    future.add_done_callback(lambda _: sys.exit(3))
    gate.set()
    future.result()
gc.collect()
"""
    )
    assert ended.stderr.count("SystemExit: 3") == 1, ended.stderr
    assert "never retrieved" not in ended.stderr


def test_exceptions_injected_into_the_loops_thread_keep_no_caller_waiting(script) -> None:  # type: ignore[no-untyped-def]
    """Whatever step they strike, in rings, hushes or answers: every call ends, by its answer or by an error."""
    ended = script(
        """
import asyncio, ctypes, logging, random, threading, time
import homeloop
logging.disable()
class Injected(Exception): pass
random.seed(0)
runtime, done = homeloop.LoopRuntime(), threading.Event()
runtime.start()
def call():
    while not done.is_set():
        try: runtime.run(asyncio.sleep, 0)
        except (Injected, homeloop.errors.RuntimeDiedError): pass
threads = [threading.Thread(target=call, daemon=True) for _ in range(3)]
for thread in threads: thread.start()
inject = ctypes.pythonapi.PyThreadState_SetAsyncExc
for _ in range(150):
    home = runtime._home
    if home is not None: inject(ctypes.c_ulong(home.thread.ident or 0), ctypes.py_object(Injected))
    time.sleep(random.uniform(0.0005, 0.01))
done.set()
for thread in threads: thread.join(20)
print([thread.is_alive() for thread in threads])
"""
    )
    assert ended.stdout == "[False, False, False]\n", ended.stderr
