"""A broker folder of one's own, programs of one's own, and the promise that nothing of either is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection

from workflow_service.gateways import broker_folder
from workflow_service.gateways.filesystem_broker import broker_url, register

PROGRAMS = Path(__file__).parent / "programs"
BOUND = 60.0  # seconds; how long anything here may take before it counts as lost

Program = subprocess.Popen[str]
Start = Callable[..., Program]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f"waited {BOUND} s for {what}"
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a broker; afterwards this process holds no place in it and no descriptor."""
    register()
    path = tmp_path / "broker"
    yield path
    assert broker_folder._owners == {}
    held = [link for fd in Path("/dev/fd").iterdir() if (link := _target(fd)) and link.startswith(str(path))]
    assert held == []


def _target(fd: Path) -> str | None:
    try:
        return str(fd.readlink())
    except OSError:  # the descriptor that lists them, and macOS
        return None


@pytest.fixture
def url(folder: Path) -> str:
    """The folder's address."""
    return broker_url(folder)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    """An open connection to the folder."""
    with Connection(url) as connection:
        connection.connect()
        yield connection


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program of ``programs/`` in a session of its own; what still runs at the end is killed."""
    running: list[Program] = []

    def start_program(*command: str | Path, **environment: str) -> Program:
        program = subprocess.Popen(
            [sys.executable, *(str(part) for part in command)],
            cwd=PROGRAMS,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(program)
        return program

    yield start_program
    for program in running:
        kill(program)


def kill(program: Program) -> None:
    """Kill -9 a program with its children, and see it gone."""
    if program.poll() is None:
        os.killpg(program.pid, signal.SIGKILL)
    program.wait(BOUND)
    if program.stdout is not None:
        program.stdout.close()


def stop(program: Program) -> int:
    """Ask a program to end, and return its exit status."""
    program.send_signal(signal.SIGTERM)
    status = program.wait(BOUND)
    if program.stdout is not None:
        program.stdout.close()
    return status


def leased(folder: Path) -> list[str]:
    """Return the names of all leased messages."""
    return sorted(path.name for path in (folder / "leased").glob("*/[!.]*/*"))


def waiting(folder: Path) -> list[str]:
    """Return the names of all waiting messages."""
    return sorted(path.name for path in (folder / "queues").glob("*/*"))
