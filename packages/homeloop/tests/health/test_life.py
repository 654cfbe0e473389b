"""The monitor's life: its thread, forks, the end of the process, processes patched by gevent or eventlet."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from homeloop import HealthMonitor, LoopRuntime, ResourceStatistics
from homeloop._events import HealthAssessed
from homeloop._figures import add_resource_source

BOUND = 20.0  # seconds


def watching() -> list[str]:
    """Return the names of the monitors' threads."""
    return [thread.name for thread in threading.enumerate() if thread.name == "homeloop-health"]


def test_the_thread_is_there_from_the_first_loop_until_stop(patient: HealthMonitor) -> None:
    """Without a loop there is nothing to watch; one thread watches all; after stop there is none."""
    patient.start()
    assert watching() == []
    with LoopRuntime(name="one") as one, LoopRuntime(name="two") as two:
        one.start()
        two.start()
        assert watching() == ["homeloop-health"]
        assert patient.stop()
        assert watching() == []
        patient.start()
        assert watching() == ["homeloop-health"], "there are loops already"
    assert patient.stop()
    assert patient.stop(), "it does nothing when it is stopped"


def test_start_again_changes_the_interval(patient: HealthMonitor, runtime: LoopRuntime, heard: Any) -> None:
    """One thread still; assessments come at the new interval."""
    runtime.start()
    patient.start(interval=3600.0)
    patient.stop()
    patient.start(interval=0.01)
    heard.wait_for(HealthAssessed)
    told = heard.wait_for(HealthAssessed)
    assert "of LangGraph, lag up to" in str(told)
    assert watching() == ["homeloop-health"]


@pytest.mark.parametrize(("interval", "error"), [(0, ValueError), (-1.0, ValueError), ("30", TypeError)])
def test_an_interval_that_makes_no_sense_is_refused(
    interval: Any, error: type[Exception], patient: HealthMonitor
) -> None:
    """Nothing is started then."""
    with pytest.raises(error, match="interval"):
        patient.start(interval)
    assert not patient.is_started


def test_a_report_needs_no_start(runtime: LoopRuntime, patient: HealthMonitor) -> None:
    """It says that nobody watches, and starts nothing."""
    runtime.run(asyncio.sleep, 0)
    report = patient.report()
    (loop,) = (each for each in report.loops if each.name == "test")
    assert (report.monitored, loop.state, loop.lag) == (False, "running", None)
    assert watching() == []


def test_lag_and_load_are_measured(runtime: LoopRuntime, patient: HealthMonitor, heard: Any) -> None:
    """Once the loop has answered twice; the utilisation is a share."""
    runtime.start()
    patient.start(interval=0.01)
    for _ in range(5):
        heard.wait_for(HealthAssessed)
    (loop,) = (each for each in patient.report().loops if each.name == "test")
    assert loop.lag is not None
    assert 0 < loop.lag.p50 <= loop.lag.p99 <= loop.lag.max
    assert loop.utilisation is not None
    assert 0 <= loop.utilisation <= 1


def test_what_fails_while_it_looks_is_logged_and_the_next_look_comes(
    runtime: LoopRuntime, patient: HealthMonitor, heard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A resource that cannot tell how it is does not end the watch."""

    class Broken:
        name = "broken"
        failing = True

        def statistics(self) -> ResourceStatistics:
            if self.failing:
                self.failing = False
                raise ZeroDivisionError
            return ResourceStatistics()

    broken = Broken()
    add_resource_source(broken)
    patient.thresholds = type(patient.thresholds)(blocked=0.05, lag=60.0, utilisation=2.0)
    with caplog.at_level(logging.ERROR, "homeloop"):
        runtime.start()
        patient.start(interval=0.01)
        heard.wait_for(HealthAssessed)
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "the health monitor failed"
    ]


FORKS = """
import os, queue, sys, threading, warnings
import homeloop
from homeloop._events import HealthAssessed

class Heard:
    def __init__(self): self.events = queue.SimpleQueue()
    def notify(self, event):
        if isinstance(event, HealthAssessed): self.events.put(event)

warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which is what is tried here
heard = Heard()
homeloop.add_instrument(heard)
monitor = homeloop.default_monitor()
monitor.start(interval=0.1)
async def nothing(): pass
homeloop.run(nothing)

def watched():
    return "homeloop-health" in [thread.name for thread in threading.enumerate()]

def child():
    assert monitor.is_started and not watched()
    assert monitor.report().loops == ()
    homeloop.run(nothing)
    assert watched()
    (loop,) = monitor.report().loops
    assert loop.home.pid == os.getpid() and loop.owner == "runtime"
    assert homeloop.ask_process(os.getpid())["pid"] == os.getpid()
    assert homeloop.ask_process(os.getppid())["pid"] == os.getppid()

assert watched()
for _ in range(2):
    heard.events.get(timeout=20)  # after the first one the timer was armed
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(3)  # with all of the interpreter's end
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
assert watched() and monitor.report().monitored
print("all ended")
"""


def test_a_forked_child_watches_its_own_loops(script: Any) -> None:
    """From its first loop on; the child ends, though it was forked while the timer of the parent was armed."""
    ended = script(FORKS, timeout=60.0)
    assert (ended.returncode, ended.stdout) == (0, "all ended\n"), ended.stderr


def test_a_process_ends_without_stop(script: Any) -> None:
    """A started monitor keeps no process, and says nothing at its end."""
    ended = script(
        """
        import homeloop
        homeloop.default_monitor().start()
        async def nothing(): pass
        homeloop.run(nothing)
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")


GREEN = """
import PATCH
import os
from concurrent.futures import Future
import homeloop
from homeloop._events import LoopStalled
from homeloop.runtime import real_threading, use_original_lock, wait_done

class Heard:
    def __init__(self):
        self.stalled = Future()
        use_original_lock(self.stalled)
    def notify(self, event):
        if isinstance(event, LoopStalled) and any(frame.endswith("blocks") for frame in event.blocked_at):
            self.stalled.set_result(event)

heard = Heard()
homeloop.add_instrument(heard)
monitor = homeloop.HealthMonitor(thresholds=homeloop.HealthThresholds(blocked=0.2), answers_owner=True)
monitor.start()
gate = real_threading().Event()

async def blocks():
    gate.wait(20)

future = homeloop.submit(blocks)
assert wait_done(heard.stalled, 20)
assert monitor.report().status == "critical"
assert homeloop.ask_process(os.getpid())["status"] == "critical"
gate.set()
future.result(20)
assert monitor.stop()
assert not [thread.name for thread in real_threading().enumerate() if thread.name.startswith("homeloop-health")]
print("told")
"""


PATCHES = {"gevent": "gevent.monkey; gevent.monkey.patch_all()", "eventlet": "eventlet; eventlet.monkey_patch()"}


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_it_watches_under_greenlets(patch: str, script: Any) -> None:
    """Its thread is the system's there, too: it tells of a blocked loop, and can be stopped."""
    ended = script(f"import warnings; warnings.simplefilter('ignore')\n{GREEN.replace('PATCH', patch)}")
    assert (ended.returncode, ended.stdout) == (0, "told\n"), ended.stderr
