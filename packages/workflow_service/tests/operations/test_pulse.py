"""A worker's pulse: when its file is touched, and when not."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import homeloop
from workflow_service.worker.pulse import Pulse

BOUND = 30.0  # seconds; a test that waits longer has failed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that is touched."""
    return tmp_path / "pulse"


@pytest.fixture
def pulse(file: Path) -> Pulse:
    """A pulse that nobody looks at by himself."""
    return Pulse(file)


@pytest.fixture
def beats(pulse: Pulse, file: Path) -> Callable[[], bool]:
    """Look, and tell whether the file was touched."""

    def look() -> bool:
        file.touch()
        os.utime(file, (1, 1))
        pulse.look()
        return file.stat().st_mtime != 1

    return look


@pytest.fixture
def loop() -> Iterator[homeloop.LoopRuntime]:
    """The default runtime, whose loop runs; closed after the test."""
    runtime = homeloop.default_runtime()
    runtime.start()
    yield runtime
    runtime.close()


def answered(loop: homeloop.LoopRuntime) -> None:
    """Return when the loop has done what it was asked before."""
    residence = loop.residence()
    assert residence is not None
    event = threading.Event()
    residence.loop.call_soon_threadsafe(event.set)
    assert event.wait(BOUND)


def test_a_worker_that_has_no_loop_and_no_broker_yet_has_a_pulse(beats: Callable[[], bool]) -> None:
    """It may wait for its broker as long as it likes; a runtime is not started for the pulse."""
    assert [beats(), beats()] == [True, True]
    assert homeloop.default_runtime().residence() is None


def test_a_connected_consumer_that_does_not_tick_has_none(pulse: Pulse, beats: Callable[[], bool]) -> None:
    """Its thread must do something once in a while; when the connection is lost it is connecting, and need not."""
    pulse.is_consuming = True
    assert not beats()
    pulse.ticks.set()
    assert [beats(), beats()] == [True, False]
    pulse.is_consuming = False
    assert beats()


def test_a_blocked_loop_has_none(loop: homeloop.LoopRuntime, beats: Callable[[], bool]) -> None:
    """It beats again when the loop goes on."""
    gate, began = threading.Event(), threading.Event()

    async def block() -> None:
        began.set()
        assert gate.wait(BOUND)

    assert beats()
    answered(loop)
    blocked = loop.submit(block)
    assert began.wait(BOUND)
    assert [beats(), beats(), beats()] == [True, False, False], "the first look asks"
    gate.set()
    blocked.result(BOUND)
    answered(loop)
    assert beats()


def test_a_loop_that_has_ended_owes_no_answer(loop: homeloop.LoopRuntime, beats: Callable[[], bool]) -> None:
    """A blocked loop that was left behind, or one that was closed: the next one is asked."""
    gate, began = threading.Event(), threading.Event()

    async def block() -> None:
        began.set()
        assert gate.wait(BOUND)

    blocked = loop.submit(block)
    assert began.wait(BOUND)
    assert [beats(), beats()] == [True, False]
    gate.set()
    blocked.result(BOUND)
    loop.close()
    assert beats()
