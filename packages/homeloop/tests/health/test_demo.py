"""F3 to F5: ``make demo-health`` shows four faults and a stopped process, each named by each who can be asked."""

import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[4] / "examples" / "health" / "demo.py"
FAULTS = ("a loop is blocked", "tasks pile up", "a pool is exhausted", "another loop's queue is used")


def test_f3_every_fault_is_named_by_each_of_the_three() -> None:
    """Within two intervals of the monitor: by the report's JSON, Prometheus' metrics and ``homeloop ps``."""
    ended = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = dict(part.split("\n", 1) for part in ended.stdout.strip().split("\n\n") if "\n" in part)
    for fault in FAULTS:
        who = re.findall(r"^  (health JSON|Prometheus|homeloop ps) ", parts[fault], re.MULTILINE)
        assert set(who) == {"health JSON", "Prometheus", "homeloop ps"}, ended.stdout
    assert re.fullmatch(r"  homeloop ps   \d+  stopped", parts["the process is stopped (kill -STOP)"]), (
        ended.stdout
    )
