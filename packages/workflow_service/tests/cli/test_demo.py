"""``workflow-service demo``: one analysis from nothing, and nothing left."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from workflow_service.local.home import Home
from workflow_service.local.postgresql import kept_cluster
from workflow_service.local.temporary import temporary_home

from .conftest import Run, eventually, lives, pids


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where commands have their temporary folders."""
    return tmp_path / "temporary"


def test_prints_findings_and_leaves_nothing(command_line: Run, temporary: Path) -> None:
    """The sample's findings are shown with their places; folders and processes are gone."""
    demo = command_line("demo")

    assert demo.wait() == 0, demo.text
    assert "100 %" in demo.text
    assert "findings in mutual-nda.pdf" in demo.text
    assert "non-compete" in demo.text
    assert "characters 4578–4801" in demo.text
    assert list(temporary.iterdir()) == []
    assert not [process for process in psutil.process_iter() if str(temporary) in " ".join(_command(process))]


def test_document_of_the_user_is_analysed(command_line: Run, tmp_path: Path) -> None:
    """--document takes a file of one's own."""
    contract = tmp_path / "contract.txt"
    contract.write_text("1. LAW\nThis Agreement is governed by the laws of the State of Delaware.\n")

    demo = command_line("demo", "--document", str(contract))

    assert demo.wait() == 0, demo.text
    assert "findings in contract.txt" in demo.text
    assert "governing law" in demo.text


def test_unreadable_document_fails_with_the_reason(command_line: Run, tmp_path: Path, temporary: Path) -> None:
    """What is no contract ends with 1 and what the service says about it; nothing is left either."""
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and then nothing")

    demo = command_line("demo", "--document", str(broken))

    assert demo.wait() == 1
    assert "error: " in demo.text
    assert "Traceback" not in demo.text
    assert list(temporary.iterdir()) == []


def test_interrupted_demo_leaves_nothing(command_line: Run, temporary: Path) -> None:
    """Ctrl-C in the midst of the start stops and removes everything, with 130."""
    demo = command_line("demo")
    place = eventually(lambda: next(temporary.glob("*/processes"), None), "it has begun").parent
    started = eventually(lambda: pids(place), "a process is on record")

    demo.interrupt()

    assert demo.wait() == 130
    assert not any(lives(pid) for pid in started.values())
    assert list(temporary.iterdir()) == []


def test_next_demo_clears_away_a_killed_one(command_line: Run, temporary: Path) -> None:
    """kill -9 leaves servers and a folder; the next demonstration ends and removes them, data included."""
    first = command_line("demo")
    place = eventually(lambda: next(temporary.glob("*/processes"), None), "it has begun").parent
    left = eventually(lambda: "PostgreSQL" in pids(place) and pids(place), "PostgreSQL is on record")
    cluster = kept_cluster(Home(place))
    assert cluster is not None
    os.kill(first.process.pid, signal.SIGKILL)
    first.wait()
    shutil.copytree(
        place / "logs", temporary / "workflow-service-demo-of-somebody" / "logs"
    )  # no records: not ours

    second = command_line("demo")

    assert second.wait() == 0, second.text
    assert not any(lives(pid) for pid in left.values())
    assert not cluster.place.exists()
    assert [path.name for path in temporary.iterdir()] == ["workflow-service-demo-of-somebody"]


@pytest.mark.parametrize("kept", ["workflow-service.lock", "logs/api.log"])
def test_half_removed_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    """Whatever is left of a demonstration whose removal was interrupted does not stop the next one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    half = tmp_path / "workflow-service-demo-half"
    (half / "processes").mkdir(parents=True)
    (half / kept).parent.mkdir(exist_ok=True)
    (half / kept).touch()

    with temporary_home() as home:
        assert list(tmp_path.iterdir()) == [home.path]
    assert list(tmp_path.iterdir()) == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
