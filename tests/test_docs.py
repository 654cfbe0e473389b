"""What the documents claim runs: every Python block marked `runnable`, each document in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python runnable\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BOUND = 60  # seconds


def documents() -> list[Path]:
    """Return the documents that have something to run."""
    candidates = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/*.md")]
    return sorted(path for path in candidates if BLOCK.search(path.read_text("utf-8")))


def program(document: Path) -> str:
    """Return a document's blocks as one program whose line numbers are the document's."""
    text = document.read_text("utf-8")
    lines = [""] * len(text.splitlines())
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_run(document: Path, tmp_path: Path) -> None:
    """A document's examples run in order, as written, without a warning and without a word on stderr."""
    script = tmp_path / f"example_{document.stem}.py"  # celery.py would hide celery
    script.write_text(program(document), "utf-8")
    command = [sys.executable, "-W", "error", script]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND, check=False)
    assert (run.returncode, run.stderr) == (0, ""), f"{document}, same line numbers:\n{run.stderr}"
