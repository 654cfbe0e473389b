"""Records of started processes, so that what a killed supervisor left behind can be ended by its successor."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from workflow_service.local.home import Home, write_private

_CLOCK_TOLERANCE = 2.0  # seconds; a start time is computed from the boot time, which moves when the clock is set
_LOOK = 0.02  # seconds between two looks at a process that is not our child, so nobody tells us when it ends
_KILL_BOUND = 5.0  # seconds the kernel may take to end a process after SIGKILL

Stopping = tuple[tuple[int, float], ...]
"""How a process is told to end: (signal, seconds it then has), one after the other; at last comes SIGKILL."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process, known by pid and start time (seconds since 1970), because a pid alone may be somebody else's."""

    name: str
    pid: int
    created: float
    command: tuple[str, ...]
    stopping: Stopping

    @classmethod
    def of(cls, name: str, pid: int, command: Sequence[str], stopping: Stopping) -> "ProcessRecord":
        """Record a living process. Raises psutil.NoSuchProcess if it is gone already."""
        return cls(name, pid, psutil.Process(pid).create_time(), tuple(command), stopping)

    def save(self, home: Home) -> Path:
        """Write the record into the home and return its file."""
        home.processes.mkdir(mode=0o700, exist_ok=True)
        file = home.processes / f"{self.pid}.json"
        write_private(file, json.dumps(asdict(self)))
        return file

    def process(self) -> psutil.Process | None:
        """Return the recorded process if it still lives."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) <= _CLOCK_TOLERANCE and is_alive(process):
                return process
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not (it stays one where process 1 does not collect orphans)."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def read_records(home: Home) -> list[ProcessRecord]:
    """Return what is recorded in the home, in the order it was started; unreadable records are skipped."""
    records: list[ProcessRecord] = []
    for file in home.processes.glob("*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError):
            data = json.loads(file.read_text())
            stopping = tuple((int(number), float(seconds)) for number, seconds in data["stopping"])
            records.append(
                ProcessRecord(data["name"], data["pid"], data["created"], tuple(data["command"]), stopping)
            )
    return sorted(records, key=lambda record: record.created)


async def end_recorded(home: Home, *, besides: Collection[int] = (), patience: float = 2.0) -> list[ProcessRecord]:
    """End every process the home has on record, the last started first, and forget the records.

    Args:
        home: The home; the caller holds its lock.
        besides: Pids to leave alone.
        patience: Seconds at most for each signal of a record's stopping.

    Returns:
        The records whose process was still there.
    """
    ended: list[ProcessRecord] = []
    for record in reversed(read_records(home)):
        if record.pid in besides:
            continue
        process = record.process()
        members = _session_members(record.pid, home)
        if process is not None:
            await end_process(process, tuple((number, min(bound, patience)) for number, bound in record.stopping))
        for member in members:
            await end_process(member, ())
        if process is not None or members:
            ended.append(record)
    for file in home.processes.glob("*.json"):
        if file.stem not in {str(pid) for pid in besides}:
            file.unlink(missing_ok=True)
    return ended


async def end_process(process: psutil.Process, stopping: Stopping) -> None:
    """Tell a process that is not our child to end, and wait until it has; bounded by ``stopping`` and SIGKILL."""
    for number, bound in (*stopping, (int(signal.SIGKILL), _KILL_BOUND)):
        with suppress(psutil.Error):
            process.send_signal(number)
        deadline = time.monotonic() + bound
        while is_alive(process) and time.monotonic() < deadline:  # noqa: ASYNC110  nothing would set an event
            await asyncio.sleep(_LOOK)
        if not is_alive(process):
            return


def _session_members(pid: int, home: Home) -> list[psutil.Process]:
    """Return what a recorded process started and left in its session, checked by the home in the environment."""
    members: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == pid or os.getsid(process.pid) != pid:
                continue
            if process.environ().get("WORKFLOW_HOME") == str(home.path):
                members.append(process)
    return members
