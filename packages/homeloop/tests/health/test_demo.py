"""F3 to F5: ``make demo-health`` shows four faults and a stopped process, each named by each who can be asked."""

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[4] / "examples" / "health" / "demo.py"
FAULTS = ("a loop is blocked", "tasks pile up", "a pool is exhausted", "another loop's queue is used")
WHO = ("health JSON", "Prometheus", "homeloop ps", "homeloop top", "page")


def test_f3_every_fault_is_named_by_each_of_the_five() -> None:
    """Within two intervals of the monitor: by the report, Prometheus, ``homeloop ps``, ``top``, the page."""
    ended = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = dict(part.split("\n", 1) for part in ended.stdout.strip().split("\n\n") if "\n" in part)
    for fault in FAULTS:
        named = re.findall(rf"^  ({'|'.join(WHO)}) ", parts[fault], re.MULTILINE)
        assert set(named) == set(WHO), ended.stdout
        assert "NOTHING" not in parts[fault], ended.stdout
    stopped = parts["the process is stopped (kill -STOP)"].splitlines()
    assert [line.split()[-1] for line in stopped] == ["stopped"] * 3, ended.stdout
