"""The start of a loop, and the end of those that never were: nobody waits for what does not come."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError, RuntimeClosedError, RuntimeDiedError

DEADLINE = 60.0  # seconds; tells a hang from an answer


class SlowFactory:
    """Makes a loop when it may."""

    def __init__(self) -> None:
        self.entered, self.may, self.calls = threading.Event(), threading.Event(), 0

    def __call__(self) -> asyncio.AbstractEventLoop:
        self.calls += 1
        self.entered.set()
        assert self.may.wait(DEADLINE)
        return asyncio.new_event_loop()


def test_a_loop_that_dies_at_once_is_an_error(script) -> None:  # type: ignore[no-untyped-def]
    """run(), with a timeout or without, and start() hear of it; so do those who come later."""
    ended = script(
        """
import asyncio, homeloop
from homeloop.errors import RuntimeDiedError
class Broken(asyncio.SelectorEventLoop):
    def run_forever(self): raise OSError("selector broken")
class Idle(asyncio.SelectorEventLoop):
    def run_forever(self): pass
for kind, reason in ((Broken, "selector broken"), (Idle, "without having run anything")):
    runtime = homeloop.LoopRuntime(loop_factory=kind)
    for options in ({"timeout": 20}, {}, None):
        try: runtime.start() if options is None else runtime.run(asyncio.sleep, 0, **options)
        except RuntimeDiedError as error: print(reason in str(error), "as soon as it was started" in str(error))
    runtime.close()
""",
        timeout=30,
    )
    assert (ended.stdout, ended.returncode) == ("True True\n" * 6, 0), ended.stderr


def test_a_slow_start_counts_against_the_timeout() -> None:
    """Its callers go when their time is over, others wait on, and the loop is made once."""
    factory = SlowFactory()
    runtime = LoopRuntime(name="slow", loop_factory=factory)
    with ThreadPoolExecutor(2) as threads, closing(runtime):
        patient = [threads.submit(runtime.run, asyncio.sleep, 0, True) for _ in range(2)]
        try:
            assert factory.entered.wait(DEADLINE)
            with pytest.raises(CallTimeoutError, match="the loop was still being started") as caught:
                runtime.run(asyncio.sleep, 0, timeout=0.01)
            assert caught.value.timeout == 0.01
            with pytest.raises(CallTimeoutError):
                asyncio.run(runtime.arun(asyncio.sleep, 0, timeout=0.01))
        finally:
            factory.may.set()
        assert [call.result(DEADLINE) for call in patient] == [True, True]
        assert (factory.calls, runtime.statistics().restarts) == (1, 0)


def test_an_interrupted_start_leaves_nothing_behind() -> None:
    """Whatever the signal's handler raises: the next call has its answer, and close() ends every thread."""
    factory = SlowFactory()
    runtime = LoopRuntime(name="interrupted", loop_factory=factory)

    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    def strike() -> None:
        assert factory.entered.wait(DEADLINE)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Thread(target=strike).start()
        with pytest.raises(StopError):
            runtime.run(asyncio.sleep, 0)
    finally:
        signal.signal(signal.SIGUSR1, before)
        factory.may.set()
    assert runtime.run(asyncio.sleep, 0, True)
    assert factory.calls <= 2  # the next call waits for the same start, unless its thread was not yet there
    runtime.close()


def test_a_runtime_is_closed_while_its_loop_is_started() -> None:
    """Its caller is refused, and no thread stays."""
    factory = SlowFactory()
    runtime = LoopRuntime(name="closed", loop_factory=factory)
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(runtime.run, asyncio.sleep, 0)
        assert factory.entered.wait(DEADLINE)
        ended = threads.submit(runtime.close, DEADLINE)
        while not runtime.is_closed:
            time.sleep(0.001)
        factory.may.set()
        ended.result(DEADLINE)
        assert isinstance(call.exception(DEADLINE), RuntimeClosedError)
    assert [thread for thread in threading.enumerate() if thread.name == "closed"] == []


def test_a_runtime_can_be_closed_after_an_interrupted_close() -> None:
    """The second one stops the loop if the first did not get so far."""
    runtime = LoopRuntime(name="twice")
    runtime.start()
    home, stopped = runtime._home, []
    assert home is not None
    stop = home.stop

    def interrupted(budget: float) -> None:
        stopped.append(budget)
        if len(stopped) == 1:
            raise KeyboardInterrupt
        stop(budget)

    home.stop = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        runtime.close()
    runtime.close()
    assert not home.thread.is_alive()


def test_what_is_submitted_to_a_dropped_runtime_says_so() -> None:
    """Nobody closed it: the error tells what did."""
    begun, may = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        may.wait(DEADLINE)
        await asyncio.Event().wait()

    runtime = LoopRuntime(name="dropped")
    running = runtime.submit(wait)
    assert begun.wait(DEADLINE)
    waiting = runtime.submit(asyncio.sleep, 0)
    del runtime
    may.set()
    assert isinstance(error := running.exception(DEADLINE), RuntimeDiedError)
    assert "it was dropped: nothing referred to it any more, which cancelled the call" in str(error)
    assert isinstance(refused := waiting.exception(DEADLINE), RuntimeClosedError)
    assert refused.dropped


def test_the_default_runtime_is_made_once_whoever_asks_meanwhile(script) -> None:  # type: ignore[no-untyped-def]
    """A finalizer, or a signal handler, that calls run() while the default runtime is made has its answer."""
    ended = script(
        """
import asyncio, homeloop
from homeloop import LoopRuntime
made = LoopRuntime.__init__
def make(self, **options):
    LoopRuntime.__init__ = made
    print(homeloop.run(asyncio.sleep, 0, "finalizer"))
    made(self, **options)
LoopRuntime.__init__ = make
print(homeloop.run(asyncio.sleep, 0, "caller"))
import threading
print(sum(thread.name == "homeloop" for thread in threading.enumerate()))
""",
        timeout=30,
    )
    assert (ended.stdout, ended.returncode) == ("finalizer\ncaller\n1\n", 0), ended.stderr


def test_blocked_runtimes_share_the_five_seconds_of_the_exit(script) -> None:  # type: ignore[no-untyped-def]
    """Six of them, each of which would take more than five alone, keep nobody longer than one does."""
    ended = script(
        """
import asyncio, threading, homeloop
kept = [homeloop.LoopRuntime(name=f"r{i}") for i in range(6)]
begun = threading.Barrier(7)
async def block():
    begun.wait()
    threading.Event().wait()
for runtime in kept: runtime.submit(block)
begun.wait()
""",
        timeout=25.0,  # one after the other they would take 42 s
    )
    assert ended.returncode == 0
    assert ended.stderr.count("RuntimeStuck") == 6


def test_an_interpreter_without_daemon_threads_says_so(script) -> None:  # type: ignore[no-untyped-def]
    """An isolated sub-interpreter gets the same error on every Python, and the main one goes on."""
    ended = script(
        '''
import asyncio, sys
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
isolated = interpreters.create("isolated") if sys.version_info >= (3, 13) else interpreters.create(isolated=True)
interpreters.run_string(isolated, """
import sys
sys.path[:] = %r
import asyncio, homeloop
try: homeloop.run(asyncio.sleep, 0)
except homeloop.errors.RuntimeDiedError as error: print("cannot be started" in str(error), flush=True)
""" % sys.path)
interpreters.destroy(isolated)
import homeloop
print(homeloop.run(asyncio.sleep, 0, "main"))
''',
        timeout=30,
    )
    assert (ended.stdout, ended.returncode) == ("True\nmain\n", 0), ended.stderr


def test_a_thread_with_the_number_of_an_ended_loops_thread_is_not_taken_for_it() -> None:
    """Numbers are given again: such a thread may close the runtime, and call it."""
    runtime = LoopRuntime(name="ended")
    runtime.start()
    home = runtime._home
    assert home is not None
    home.stop(1.0)
    home.thread.join(20)
    told: list[object] = []

    def close() -> None:
        told.append(runtime.is_current)
        runtime.close()

    for _ in range(1000):
        another = threading.Thread(target=close)
        another.start()
        number = another.ident
        another.join(20)
        if number == home.thread.ident:
            break
        runtime._home, runtime._closed = home, False
    else:
        pytest.skip("this machine gave no thread the number of the ended one")
    assert not any(told)
