"""Exceptions from outside, at bad moments: nobody else is harmed, and nothing stays entered."""

import asyncio
import concurrent.futures
import gc
import sys
import threading
from collections import deque
from types import FrameType

import pytest

from homeloop import LoopRuntime, add_instrument
from homeloop._events import CallAbandoned, Event
from homeloop.runtime._bell import Bell

DEADLINE = 20.0  # seconds; tells a hang from an answer

posix_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


class StruckError(BaseException):
    """What strikes."""


async def one() -> int:
    return 1


@posix_signals
def test_what_was_entered_as_an_exception_struck_is_left(script) -> None:  # type: ignore[no-untyped-def]
    """A signal handler raises as ``__aenter__`` ends, or the first item comes: the exit runs, the body never."""
    ended = script(
        """
import os, signal
import homeloop
class Limit(BaseException): pass
def strike(*_): raise Limit
signal.signal(signal.SIGUSR1, strike)
entered, left = [], []
class Pool:
    async def __aenter__(self):
        entered.append(self)
        os.kill(os.getpid(), signal.SIGUSR1)
    async def __aexit__(self, *raised): left.append(self)
async def items():
    entered.append(1)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        yield 1
    finally: left.append(1)
def enter():
    with homeloop.enter(Pool()): pass
def iterate():
    for _ in homeloop.iterate(items): pass
for act in (enter, iterate):
    struck = 0
    for _ in range(40):
        try:
            act()
            for _ in range(10_000): pass  # it may be a few instructions late
        except Limit: struck += 1
    print(struck, len(entered) - len(left), homeloop.default_runtime().statistics().in_flight)
"""
    )
    assert (ended.stdout, ended.stderr) == ("40 0 0\n40 0 0\n", "")


def test_a_waiter_struck_anywhere_keeps_no_lock(runtime: LoopRuntime) -> None:
    """At whatever line of `result` an exception strikes: the loop, and the future's other threads, go on."""
    others = concurrent.futures.ThreadPoolExecutor(1)

    def wait_struck_at(line: int) -> bool:
        may_end = asyncio.Event()
        future = runtime.submit(may_end.wait)
        left = line

        def strike(frame: FrameType, event: str, _: object) -> object:
            nonlocal left
            if frame.f_code.co_filename == concurrent.futures._base.__file__:
                return strike  # between the lines of ``with``, where a trace function runs, no signal handler does
            left -= 1
            if left == 0:
                raise StruckError
            return strike

        struck = True
        sys.settrace(strike)  # type: ignore[arg-type]
        try:
            future.result(0.001)
        except TimeoutError:
            struck = left <= 0
        except BaseException:  # struck twice, in effect, it may be another one
            pass
        finally:
            sys.settrace(None)
        assert not others.submit(future.done).result(DEADLINE)
        runtime.run(_set, may_end, timeout=DEADLINE)
        assert others.submit(future.result, DEADLINE).result(DEADLINE) is True
        return struck

    traced = sys.gettrace()
    gc.disable()  # what it calls back would be struck, too, which is none of ours
    try:
        struck = next(line for line in range(1, 2000) if not wait_struck_at(line))
    finally:
        gc.enable()
        sys.settrace(traced)
        others.shutdown()
    assert struck > 20


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_a_thread_that_keeps_a_futures_lock_does_not_block_the_loop(runtime: LoopRuntime) -> None:
    """As one does that was struck in `concurrent.futures.wait`. The future is done as soon as it lets go."""
    may_end = asyncio.Event()
    future = runtime.submit(may_end.wait)
    with future._condition:
        assert runtime.run(_set, may_end, timeout=DEADLINE) is None
        assert runtime.run(one, timeout=DEADLINE) == 1
    assert future.result(DEADLINE) is True


def test_a_call_struck_before_it_was_posted_is_not_waited_for(runtime: LoopRuntime) -> None:
    """It will never run, so there is no clean-up to wait for."""
    home = runtime._running_home()
    runtime.grace = 3600.0
    inbox = home._inbox

    class Striking(deque):  # type: ignore[type-arg]
        def append(self, call: object) -> None:
            home._inbox = inbox
            raise StruckError

    raised = []

    def caller() -> None:
        home._inbox = Striking()
        try:
            runtime.run(one)
        except StruckError as error:
            raised.append(error)

    thread = threading.Thread(target=caller, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert len(raised) == 1


def test_a_bell_that_was_struck_while_it_was_made_is_freed_in_silence() -> None:
    """It has no descriptor yet."""
    Bell.__new__(Bell).__del__()


def test_a_cancelled_future_that_ignores_it_is_abandoned_in_the_end() -> None:
    """Nobody waits for it, so nobody else would tell: it is counted, and named with its function."""
    events: list[Event] = []
    abandoned, started, may_end = threading.Event(), threading.Event(), threading.Event()

    class Recorder:
        def notify(self, event: Event) -> None:
            events.append(event)
            if isinstance(event, CallAbandoned):
                abandoned.set()

    async def stubborn() -> None:
        started.set()
        while not may_end.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    remove = add_instrument(Recorder())
    try:
        with LoopRuntime(name="stubborn", grace=0.05) as runtime:
            future = runtime.submit(stubborn)
            assert started.wait(DEADLINE)
            assert future.cancel()
            assert abandoned.wait(DEADLINE)
            runtime.run(one)
            assert runtime.statistics().abandoned == 1
            may_end.set()
    finally:
        remove()
    told = [event for event in events if isinstance(event, CallAbandoned)]
    assert [event.what.rpartition(".")[2] for event in told] == ["stubborn()"]


def test_a_cancelled_future_that_obeys_is_not_abandoned() -> None:
    """Its grace is forgotten when it ends."""
    events: list[Event] = []
    started = threading.Event()

    class Recorder:
        def notify(self, event: Event) -> None:
            events.append(event)

    async def obedient() -> None:
        started.set()
        await asyncio.Event().wait()

    remove = add_instrument(Recorder())
    try:
        with LoopRuntime(name="obedient", grace=0.05) as runtime:
            future = runtime.submit(obedient)
            assert started.wait(DEADLINE)
            assert future.cancel()
            runtime.run(asyncio.sleep, 0.1)
            assert runtime.statistics().abandoned == 0
    finally:
        remove()
    assert not [event for event in events if isinstance(event, CallAbandoned)]


def test_a_task_left_at_the_end_is_named_with_its_function(script) -> None:  # type: ignore[no-untyped-def]
    """Once, and not by asyncio's "Task was destroyed but it is pending!" as well."""
    ended = script(
        """
import asyncio, gc, logging, threading
import homeloop
logging.basicConfig(format="%(message)s")
started = threading.Event()
async def stubborn():
    started.set()
    while True:
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: pass
runtime = homeloop.LoopRuntime(grace=0.05)
runtime.submit(stubborn)
started.wait(30)
runtime.close(0.1)
del runtime
gc.collect()
"""
    )
    assert ended.stderr.count("TaskLeft") == 1
    assert "__main__.stubborn()" in ended.stderr
    assert "destroyed" not in ended.stderr
