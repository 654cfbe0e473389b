"""A run that was cut off by kill -9, of its process or of its worker, is resumed on every tier."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest
from graph_runs import go, thread

from homeloop import Isolation
from homeloop.adapters.langgraph import LangGraphEventLoopManager
from homeloop.errors import WorkerDiedError

pytestmark = pytest.mark.needs("postgres")
APPS = Path(__file__).parent / "apps"
BOUND = 60.0  # seconds


def test_kill_9_on_every_tier(work: Any, tmp_path: Path) -> None:
    """
    Killed in the middle of its second node, a run in any tier goes on in another process with that node.

    The first node has run once, the second twice, the third once; nothing of the killed process is left.
    """
    notes = tmp_path / "notes"
    prefix = uuid.uuid4().hex
    environment = {**os.environ, "GRAPH_NOTES": str(notes), "PYTHONPATH": str(APPS)}
    command = [sys.executable, str(APPS / "graph_lives.py"), prefix]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        waiting = {first.stdout.readline().strip() for _ in range(4)}
        workers = psutil.Process(first.pid).children(recursive=True)
        first.kill()
    assert waiting == {"none", "context", "thread", "process"}
    _, alive = psutil.wait_procs(workers, timeout=BOUND)
    assert (len(workers) >= 1, alive) == (True, [])
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOUND, check=True)
    assert json.loads(second.stdout) == [[3, 4]] * 4, second.stderr
    lines = notes.read_text().splitlines()
    for tier in waiting:
        assert [lines.count(f"{tier} step {n}") for n in range(3)] == [1, 2, 1]


def test_a_worker_that_is_killed(
    work: Any, manager: LangGraphEventLoopManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails with its worker, saying so; the same call again resumes it in another worker."""
    config = thread()
    begin = {"n": 0, "places": []}
    monkeypatch.setenv("GRAPH_NOTES", str(tmp_path / "notes"))
    executor = manager.executor

    async def main() -> Any:
        await executor.run(set_notes, str(tmp_path / "notes"), isolation=Isolation.PROCESS)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            await executor.run(work.dying.ainvoke_durably, begin, config, isolation=Isolation.PROCESS)
        await executor.run(set_notes, str(tmp_path / "notes"), isolation=Isolation.PROCESS)
        return await executor.run(work.dying.ainvoke_durably, begin, config, isolation=Isolation.PROCESS)

    from graph_work import set_notes

    assert go(main)["n"] == 2
    assert (tmp_path / "notes").read_text().splitlines() == ["judge 1", "judge 1"]
