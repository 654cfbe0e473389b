"""Processes as tests see them: when they are there, and when they are gone."""

import time
from pathlib import Path

from waiting import DEADLINE, until


async def appears(path: Path) -> int:
    """Wait until a file is there; return the number in it."""
    await until(path.exists)
    return int(path.read_text())


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits for its parent's attention does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_gone(*pids: int) -> None:
    """Wait until none of the processes runs."""
    deadline = time.monotonic() + DEADLINE
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.01)
