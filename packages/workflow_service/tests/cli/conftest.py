"""The command line in processes of its own, and everything it starts ended with the test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from workflow_service.local.home import Home
from workflow_service.local.postgresql import kept_cluster
from workflow_service.local.records import is_alive, read_records

BOUND = 60.0  # seconds; a test that waits longer has failed


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of ``condition``, or fail naming ``what``."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"not within {BOUND:.0f} s: {what}")


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


class CommandLine:
    """One ``workflow-service`` command, and what it has written."""

    def __init__(self, output: Path, *arguments: str, **environment: str) -> None:
        self._output = output
        unset = {"DATABASE_URL", "BROKER_URL", "WORKFLOW_API_KEYS", "WORKFLOW_HOME"}
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workflow_service", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**inherited, **environment},
                process_group=0,
            )

    @property
    def text(self) -> str:
        """What it has written so far."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has written this; it may not end before."""
        eventually(lambda: text in self.text or self.process.poll() is not None, f"{text!r} in {self.text!r}")
        assert text in self.text, self.text

    def interrupt(self) -> None:
        """Do what a terminal does at Ctrl-C: signal the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(BOUND)

    def close(self) -> None:
        """End it if it still runs, giving it the time to end what it started."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(BOUND)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


Run = Callable[..., CommandLine]


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[Run]:
    """Run commands; their temporary folders are in the test's own."""
    started: list[CommandLine] = []
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def run(*arguments: str, **environment: str) -> CommandLine:
        output = tmp_path / f"output-{len(started)}"
        started.append(CommandLine(output, *arguments, **{"TMPDIR": str(temporary), **environment}))
        return started[-1]

    yield run
    for command in reversed(started):
        command.close()


@pytest.fixture
def home(tmp_path: Path, command_line: Run) -> Iterator[Path]:
    """A home that is not there yet; afterwards nothing of it runs and its database is gone."""
    path = tmp_path / "home"
    yield path
    if not path.exists():
        return
    kept = Home(path)
    # Whoever still serves it is ended first: fixtures end in reverse order, commands after this one.
    lock = path / "workflow-service.lock"
    holder = int(lock.read_text() or 0) if lock.exists() else 0
    if holder and lives(holder):
        os.kill(holder, signal.SIGTERM)
        eventually(lambda: not lives(holder), "the service has stopped")
    left = [record for record in read_records(kept) if record.process() is not None]
    for record in left:
        os.kill(record.pid, signal.SIGKILL)
    cluster = kept_cluster(kept)
    if cluster is not None:
        cluster.remove()
    assert not left, "the test left processes behind"


def pids(home: Path) -> Mapping[str, int]:
    """Return the pids of the processes that a service has on record, by name."""
    return {record.name: record.pid for record in read_records(Home(home))}


def connection(home: Path) -> dict[str, Any]:
    """Return what the service wrote about how to reach it."""
    facts: dict[str, Any] = json.loads((home / "connection.json").read_text())
    return facts
