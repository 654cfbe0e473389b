"""F3, blocked loops: told while they are, with the stack that blocks, on loops of ours and of others."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from homeloop import HealthMonitor, HealthReport, LoopHealth, LoopRuntime
from homeloop._events import (
    HealthRestored,
    HealthWorsened,
    LoopResumed,
    LoopStalled,
    RuntimeStuck,
)

BOUND = 20.0  # seconds
Factory = Callable[[], asyncio.AbstractEventLoop]


def _factories() -> dict[str, Factory]:
    factories: dict[str, Factory] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}


@contextmanager
def serving(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Run somebody else's loop on a thread of its own, and close it."""
    thread = threading.Thread(target=loop.run_forever, name="server")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(BOUND)
        loop.close()


def blocked_in(function: str) -> Callable[[LoopStalled], bool]:
    """Return whether a loop stalled in a function; on a busy machine any loop may stall."""
    return lambda event: any(frame.endswith(function) for frame in event.blocked_at)


def of(report: HealthReport, name: str) -> LoopHealth:
    """Return what a report says of one loop."""
    (found,) = (loop for loop in report.loops if loop.name == name)
    return found


def test_f3_a_blocked_loop_is_told_with_the_stack_that_blocks(
    runtime: LoopRuntime, monitor: HealthMonitor, heard: Any, gate: threading.Event
) -> None:
    """While it lasts the status is critical and says where; afterwards it is a warning that remembers."""

    async def forgets_that_this_blocks() -> None:
        gate.wait(BOUND)

    monitor.start(interval=60.0)
    blocking = runtime.submit(forgets_that_this_blocks)
    stalled = heard.wait_for(LoopStalled, blocked_in("forgets_that_this_blocks"))
    assert stalled.name == "test"
    assert "Home" not in stalled.blocked_at[0], "the loop's own frames are left out"

    report = monitor.report()
    loop = of(report, "test")
    assert (report.status, loop.state) == ("critical", "blocked")
    assert loop.stall is not None
    assert loop.stall.seconds >= 0.2
    assert loop.lag is not None
    assert loop.lag.max >= 0.2
    assert report.findings[0].kind == "loop-blocked"
    assert "forgets_that_this_blocks" in report.recommendations[0]
    assert "asyncio.to_thread()" in report.recommendations[0]

    gate.set()
    blocking.result(BOUND)
    assert heard.wait_for(LoopResumed).seconds >= 0.2
    report = monitor.report()
    assert of(report, "test").last_stall is not None
    assert "loop-blocked" in {finding.kind for finding in report.findings}
    assert any("forgets_that_this_blocks" in incident.text for incident in report.incidents)


@pytest.mark.parametrize("kind", _factories())
def test_f3_a_loop_that_it_was_told_of_is_watched_until_it_is_closed(
    kind: str, monitor: HealthMonitor, heard: Any, gate: threading.Event
) -> None:
    """A stranger's loop is told when it blocks, found on its own thread, and forgotten once it is closed."""
    loop = _factories()[kind]()
    monitor.start(interval=60.0)
    with serving(loop):
        monitor.watch_loop(loop, name="server")
        loop.call_soon_threadsafe(gate.wait, BOUND)
        stalled = heard.wait_for(LoopStalled, blocked_in("Event.wait"))
        assert of(monitor.report(), "server").state == "blocked"
        gate.set()
        heard.wait_for(LoopResumed)
        found = of(monitor.report(), "server")
        assert (stalled.name, found.owner, found.home.thread) == ("server", "watched", "server")
    assert "server" not in [loop.name for loop in monitor.report().loops]


def test_a_watched_loop_is_not_kept(monitor: HealthMonitor) -> None:
    """A loop that its owner has dropped is collected."""
    loop = asyncio.new_event_loop()
    monitor.watch_loop(loop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


def test_watching_can_be_ended(patient: HealthMonitor) -> None:
    """The function that `watch_loop` returns ends it, also when called twice; without a loop it is refused."""
    loop = asyncio.new_event_loop()
    unwatch = patient.watch_loop(loop, name="mine")
    assert of(patient.report(), "mine").state == "idle"
    unwatch()
    unwatch()
    assert "mine" not in [loop.name for loop in patient.report().loops]
    loop.close()
    with pytest.raises(RuntimeError, match="no running event loop"):
        patient.watch_loop()


def test_start_watches_the_loop_it_is_called_on(patient: HealthMonitor) -> None:
    """At the start-up of a server, its loop is running; nobody has to name it."""

    async def main() -> None:
        patient.start()
        loop = of(patient.report(), "MainThread")
        assert (loop.owner, loop.state) == ("watched", "running")

    asyncio.run(main())


def test_a_loop_that_nobody_runs_now_is_not_blocked(monitor: HealthMonitor, heard: Any) -> None:
    """A notebook's loop between two cells is idle, and what waits for it meanwhile is no lag."""
    loop = asyncio.new_event_loop()
    monitor.start(interval=60.0)
    monitor.watch_loop(loop, name="notebook")
    with LoopRuntime(name="other") as other:
        gate = threading.Event()

        async def block() -> None:
            gate.wait(BOUND)

        blocking = other.submit(block)
        heard.wait_for(LoopStalled, blocked_in("block"))  # it has looked for longer than it waits
        assert of(monitor.report(), "notebook").state == "idle"
        gate.set()
        blocking.result(BOUND)
    assert of(monitor.report(), "notebook").lag is None
    loop.close()


def test_f3_changes_are_told_once_an_interval(
    monitor: HealthMonitor, runtime: LoopRuntime, heard: Any, gate: threading.Event
) -> None:
    """What is found for the first time is told; when nothing is left, that is told, too."""
    monitor.thresholds = type(monitor.thresholds)(blocked=0.2, lag=60.0, utilisation=2.0, memory=0.2)

    async def block() -> None:
        gate.wait(BOUND)

    monitor.start(interval=0.1)
    blocking = runtime.submit(block)
    worse = heard.wait_for(HealthWorsened, lambda event: event.status == "critical")
    assert "has not run" in worse.findings[0]
    gate.set()
    blocking.result(BOUND)
    assert str(heard.wait_for(HealthRestored)) == "event loop health: healthy again"


def test_a_loop_left_behind_is_still_told(
    monitor: HealthMonitor, runtime: LoopRuntime, heard: Any, gate: threading.Event
) -> None:
    """`replace_loop` gives up a blocked loop; until it ends it is blocked, and the runtime's loss is a finding."""

    async def block() -> None:
        gate.wait(BOUND)

    monitor.start(interval=60.0)
    runtime.submit(block)
    heard.wait_for(LoopStalled, blocked_in("block"))
    runtime.replace_loop()
    heard.wait_for(RuntimeStuck)
    runtime.start()
    states = {loop.state for loop in monitor.report().loops if loop.name == "test"}
    assert states == {"blocked", "running"}
    assert "runtime-lost" in {finding.kind for finding in monitor.report().findings}


HELD = """
import ctypes, queue
import homeloop
from homeloop._events import InterpreterStalled

class Heard:
    def __init__(self): self.events = queue.SimpleQueue()
    def notify(self, event):
        if isinstance(event, InterpreterStalled): self.events.put(event)

async def extension_that_keeps_the_lock():
    ctypes.PyDLL(None).sleep(2)  # unlike CDLL, it does not release the lock

heard = Heard()
homeloop.add_instrument(heard)
monitor = homeloop.HealthMonitor(thresholds=homeloop.HealthThresholds(blocked=0.5))
monitor.start()
while True:
    homeloop.run(extension_that_keeps_the_lock)
    homeloop.run(extension_that_keeps_the_lock)
    if heard.events.empty():  # the first time may come before the first look
        continue
    event = heard.events.get()
    # On a busy machine it tells of times, too, in which the process was given no processor.
    stacks = [frames for name, *frames in event.stacks if name == "homeloop"]
    if stacks and stacks[0][-1].endswith("in extension_that_keeps_the_lock"):
        break
assert event.seconds >= 1, event
assert len(stacks) == len(stacks[0]) == 1, stacks
report = monitor.report()
assert "interpreter-stalled" in {finding.kind for finding in report.findings}, report.findings
assert any("extension_that_keeps_the_lock" in text for text in report.recommendations)
monitor.stop()
print("told")
"""


def test_f3_what_holds_the_interpreters_lock_is_told(script: Any) -> None:
    """No Python code can look meanwhile; afterwards the stack that held the lock is there."""
    ended = script(HELD)
    assert (ended.returncode, ended.stdout) == (0, "told\n"), ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith("no Python code has run for ")]
    # The thread that has called may be caught in its call, and is named then, too.
    threads = [each for line in told for each in line.partition("threads: ")[2].split("; ")]
    assert any(
        each.startswith("homeloop: ") and each.endswith(" in extension_that_keeps_the_lock") for each in threads
    )


TIMED = """
import faulthandler, sys, tempfile
import homeloop

monitor = homeloop.HealthMonitor(thresholds=homeloop.HealthThresholds(blocked=0.05))
monitor.start()
with tempfile.TemporaryFile("w+") as file:
    faulthandler.dump_traceback_later(0.5, file=file)
    async def nothing(): pass
    while not file.read():
        homeloop.run(nothing)
        file.seek(0)
monitor.stop()
print("written")
"""


def test_the_programs_own_timer_of_faulthandler_is_left_alone(script: Any) -> None:
    """A process has one such timer; it is the program's."""
    ended = script(TIMED)
    assert (ended.returncode, ended.stdout) == (0, "written\n"), ended.stderr[-2000:]
