"""A6: what calls leave behind, counted in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

LEFTOVERS = Path(__file__).parent / "apps" / "leftovers.py"


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are told apart by /proc")
def test_a6_nothing_is_left_after_1_20_100_and_1000_calls() -> None:
    """No thread, task, loop, socket or descriptor more than before, once what was kept is closed."""
    ended = subprocess.run([sys.executable, LEFTOVERS], capture_output=True, text=True, timeout=100, check=False)
    print(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines()[2:]]
    after = {row[0]: row[1:] for row in rows}
    assert after["before"][:5] == after["closed"][:5]
    assert after["1,000 in turn"][:3] == ["2", "0", "1"], "threads, tasks, loops: the runtime's own"
