"""Failing programs under doctor: the right class, no false alarm, and the documents show what is printed."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[4]
BOUND = 100.0  # seconds

# One of each way in which a fault comes to light, and look-alikes; `make failures` runs them all.
CHOSEN = "^(04|18|27|29|30|51|54|57|74|80|92|121|122)_"


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=BOUND, check=False
    )


@pytest.mark.needs("postgres", "redis")
def test_corpus() -> None:
    """Each fault gets its class and each look-alike none."""
    ended = run(str(HERE / "failures.py"), "--jobs", "2", "--only", CHOSEN)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| 8 | 8 | 8 |" in ended.stdout


@pytest.mark.needs("postgres")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="spans and messages differ between versions of Python")
def test_pages() -> None:
    """docs/errors says what the code says, and shows what it prints."""
    ended = run(str(HERE / "pages.py"), "--check")
    assert ended.returncode == 0, ended.stdout + ended.stderr
