"""A closed executor refuses everything by one error, and ends or answers what was under way."""

import asyncio
import functools
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import isolated_work as work
import pytest
import reporting_work as reporting

from homeloop import Isolation, IsolationExecutor
from homeloop._events import WorkerLost
from homeloop.errors import ExecutorClosedError, RuntimeDiedError
from homeloop.isolation import _forge
from homeloop.isolation._template import Setup
from homeloop.isolation._wire import Kind, frame
from homeloop.isolation._worker import WorkerOptions

EVERY = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS, Isolation.AUTO]
PLACES = [Isolation.THREAD, Isolation.PROCESS]
DEADLINE = 30.0  # seconds; tells a hang from an answer
REFUSAL = "isolation executor 'shut' is closed; make another IsolationExecutor"


@pytest.mark.parametrize("tier", EVERY)
def test_every_entry_is_refused(go: Any, tier: Isolation) -> None:
    """The error names the executor and says what to do; nothing is called, nothing started."""
    executor = IsolationExecutor(name="shut")
    called: list[int] = []

    async def fn() -> None:
        called.append(1)

    async def main() -> None:
        before, within = executor.isolated("before", isolation=tier), executor.isolated("within", isolation=tier)
        async with within:
            await within.run(work.identity, 1) if tier in (Isolation.NONE, Isolation.CONTEXT) else None
            await asyncio.to_thread(executor.close)
            refused: list[Callable[[], Any]] = [
                lambda: executor.run(fn, isolation=tier),
                lambda: within.run(fn),
                lambda: before.__aenter__(),
            ]
            for ask in refused:
                with pytest.raises(ExecutorClosedError, match=REFUSAL):
                    await ask()
        threads = threading.active_count()
        refused = [
            lambda: executor.run_sync(fn, isolation=tier),
            lambda: executor.stream(work.count_up, 1, isolation=tier),
            lambda: executor.isolated("after", isolation=tier),
            lambda: executor.enclosed("after"),
            lambda: executor.warm(tier),
        ]
        for ask in refused:
            with pytest.raises(ExecutorClosedError, match=REFUSAL):
                ask()
        assert threading.active_count() == threads

    go(main)
    executor.close()  # as often as you like
    assert called == []


@pytest.mark.parametrize("tier", PLACES)
def test_what_is_under_way(go: Any, tier: Isolation) -> None:
    """What runs is cancelled and told so; what waits for its turn is refused, and starts nothing any more."""

    async def main() -> None:
        executor = IsolationExecutor(name="shut", max_threads=1, max_processes=1)
        begun = asyncio.Event()
        run = functools.partial(executor.run, isolation=tier)
        runs = asyncio.ensure_future(run(reporting.report_then_wait, on_progress=lambda *_: begun.set()))
        await begun.wait()
        waits = asyncio.ensure_future(run(work.identity, 1))
        await asyncio.sleep(0)
        await asyncio.to_thread(executor.close)
        with pytest.raises(RuntimeDiedError):
            await runs
        with pytest.raises(ExecutorClosedError, match=REFUSAL):
            await waits
        statistics = executor.statistics().tiers[tier]
        assert (statistics.in_flight, statistics.lent) == (0, 0)

    go(main)


def test_whoever_waits_behind_a_blocked_thread(go: Any) -> None:
    """Closing answers at once those who wait for a thread that cannot be ended, and for ever without a timeout."""
    release = threading.Event()
    begun = threading.Event()

    async def block() -> None:
        begun.set()
        release.wait(DEADLINE)

    async def main() -> None:
        executor = IsolationExecutor(name="shut", max_threads=1)
        run = functools.partial(executor.run, isolation=Isolation.THREAD)
        blocked = asyncio.ensure_future(run(block))
        await asyncio.to_thread(begun.wait, DEADLINE)
        waits = asyncio.ensure_future(run(work.identity, 1))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(executor.close, DEADLINE))
        with pytest.raises(ExecutorClosedError, match=REFUSAL):
            await waits
        assert not closing.done()
        release.set()
        await closing
        await asyncio.gather(blocked, return_exceptions=True)

    try:
        go(main)
    finally:
        release.set()


def test_a_workers_start(go: Any, heard: Any, tmp_path: Path) -> None:
    """A run whose worker is starting is refused, and the one behind it, too; no worker stays, none is lost."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def main() -> None:
        executor = IsolationExecutor(
            name="shut", max_processes=1, initializer=functools.partial(work.pass_gate, str(gate))
        )
        run = functools.partial(executor.run, work.identity, 1, isolation=Isolation.PROCESS)
        runs = [asyncio.ensure_future(run()), asyncio.ensure_future(run())]
        end = await asyncio.to_thread(open, gate, "w")  # opens when the worker has
        await asyncio.to_thread(executor.close)
        end.close()
        for each in runs:
            with pytest.raises(ExecutorClosedError, match=REFUSAL):
                await each
        assert executor.statistics().tiers[Isolation.PROCESS].lent == 0
        assert heard(WorkerLost) == []

    go(main)


def test_a_template_whose_parent_has_gone(tmp_path: Path) -> None:
    """A template that is ready only after its executor was closed ends without a word."""
    options = WorkerOptions(1.0, 1.0, 1.0, None, None)
    setup = Setup(os.getpid(), sys.argv, None, None, (), options)
    ours, theirs = socket.socketpair()
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        with theirs, ours:
            template = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c", _forge._BOOT),
                    *(str(stderr.fileno()), str(theirs.fileno()), json.dumps(sys.path)),
                ],
                pass_fds=(theirs.fileno(), stderr.fileno()),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
            ours.sendall(frame(Kind.SETUP, 0, pickle.dumps(setup)))
        assert template.wait(DEADLINE) == 0
    assert said.read_text() == ""


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, *PLACES])
def test_a_scope_is_left_after_that(go: Any, tier: Isolation) -> None:
    """Leaving a scope whose executor has ended what it had is no error: nothing is left."""

    async def main() -> None:
        executor = IsolationExecutor(name="shut", max_threads=1, max_processes=1)
        async with executor.isolated("open", isolation=tier) as scope:
            assert await scope.run(work.identity, 1) == 1
            await asyncio.to_thread(executor.close)
        assert executor.statistics().tiers[tier].lent == 0

    go(main)


def test_two_threads_close_at_a_time(go: Any) -> None:
    """Whoever closes second has it closed as well, and no error."""

    async def main() -> None:
        executor = IsolationExecutor(name="shut", max_processes=1)
        await executor.run(work.identity, 1, isolation=Isolation.PROCESS)
        await asyncio.gather(*(asyncio.to_thread(executor.close) for _ in range(4)))

    for _ in range(5):
        go(main)
