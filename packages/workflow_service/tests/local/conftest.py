"""Homes and supervisors that end with the test, whatever the test did to them."""

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workflow_service.local.home import Home
from workflow_service.local.postgresql import kept_cluster
from workflow_service.local.records import end_recorded, is_alive, read_records

SCRIPT = str(Path(__file__).with_name("supervised.py"))
DEADLINE = 30.0  # seconds; a test that waits longer has failed


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of ``condition``, or fail naming ``what``."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {DEADLINE:.0f} s: {what}")


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


class Supervised:
    """A supervisor in a process group of its own, and what it has told."""

    def __init__(self, home: Path, spec: dict[str, Any]) -> None:
        argv = [sys.executable, SCRIPT, str(home), json.dumps(spec)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, process_group=0)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def next_line(self) -> dict[str, Any]:
        """Return what it tells next."""
        line: dict[str, Any] = json.loads(self._lines.get(timeout=DEADLINE))
        return line

    def told(self, fact: str) -> Any:
        """Return the value of the next line with this fact; an error instead fails the test."""
        while True:
            line = self.next_line()
            if fact in line:
                return line[fact]
            assert "error" not in line, line

    def interrupt(self) -> None:
        """Do what a terminal does at Ctrl-C: signal the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home; afterwards no process of it lives and its database is gone."""
    home = Home.open(tmp_path / "home")
    yield home
    left = [record for record in read_records(home) if record.process() is not None]
    asyncio.run(end_recorded(home))
    cluster = kept_cluster(home)
    if cluster is not None:
        cluster.remove()
    assert not left, "the test left processes behind"


@pytest.fixture
def supervise(home: Home) -> Iterator[Callable[..., Supervised]]:
    """Start supervisors on the home; they and what they started end with the test."""
    with contextlib.ExitStack() as stack:
        started: list[Supervised] = []

        def start(*children: dict[str, Any], **spec: Any) -> Supervised:
            started.append(Supervised(home.path, {"children": children, **spec}))
            stack.callback(started[-1].close)
            return started[-1]

        yield start
        for supervised in started:
            if supervised.process.poll() is None:
                supervised.process.terminate()
                supervised.wait()
