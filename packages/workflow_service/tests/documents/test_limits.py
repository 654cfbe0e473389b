"""What confines the reading process."""

import os
import subprocess
import sys
from pathlib import Path

# Without coverage, which could not write its figures under the limits and would say so.
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

PROGRAM = """
import sys
from workflow_service.gateways.reading.limits import Limits, confine
confine(Limits(1 << 32, 30, 1, 1))
print("the last words", file=sys.stderr, flush=True)
with open(sys.argv[1], "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(1 << 20))
    except OSError:
        pass
"""


def test_errors_reach_a_log_file_and_files_stay_small(tmp_path: Path) -> None:
    """A confined process can still say what broke it, behind what the log holds, and cannot fill the disk."""
    log = tmp_path / "log"
    log.write_text("x" * 100_000)
    with log.open("a") as errors:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "other"],
            stderr=errors,
            check=True,
            timeout=60,
            env=UNMEASURED,
        )
    assert log.read_text().endswith("xthe last words\n")
    assert (tmp_path / "other").stat().st_size < 2 * 1024 * 1024


def test_without_a_log_file_nothing_is_written(tmp_path: Path) -> None:
    """Where standard error is no file, no file takes a byte."""
    run = [sys.executable, "-c", PROGRAM, tmp_path / "other"]
    done = subprocess.run(run, stderr=subprocess.PIPE, text=True, check=True, timeout=60, env=UNMEASURED)
    assert done.stderr == "the last words\n"
    assert (tmp_path / "other").stat().st_size == 0
