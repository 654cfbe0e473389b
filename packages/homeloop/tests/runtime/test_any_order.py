"""Any steps in any order: a state machine beside a small model, in a process of its own; see ``any_order``."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MACHINE = Path(__file__).parent / "any_order"
EXAMPLES = 75
LEAST = 2000  # steps
BOUND = 280.0  # seconds

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")


@pytest.mark.timeout(BOUND + 20)
def test_any_steps_in_any_order(tmp_path: Path) -> None:
    """Every outcome is one that is promised, statistics and events are true, nothing hangs, nothing is left."""
    journal = tmp_path / "steps"
    options = ["--seed", "0", "--examples", str(EXAMPLES), "--journal", journal]
    ended = subprocess.run(
        [sys.executable, "-W", "error", MACHINE, *options],
        cwd=tmp_path,
        # Not measured: it forks beside threads, and a child may find a lock of coverage's that another one held.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    steps = journal.read_text() if journal.exists() else "none"
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\nThe steps of the last example:\n{steps}"
    assert int(re.findall(r"(\d+) steps", ended.stdout)[-1]) >= LEAST
