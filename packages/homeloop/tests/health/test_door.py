"""F5, the door: a user's processes tell that user how they are, and nobody else."""

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from homeloop import LoopRuntime, ask_process, local_processes
from homeloop.cli import main
from homeloop.health import _door
from homeloop.health._door import Door, own_folder

Start = Callable[[str], "subprocess.Popen[str]"]

WORKER = """
import asyncio, sys, threading
import homeloop

kept = []

async def poll_for_ever():
    await asyncio.Event().wait()

async def start():
    kept.extend(asyncio.create_task(poll_for_ever()) for _ in range(60))

homeloop.default_monitor().start()
homeloop.run(start)
settled = threading.Event()  # the call's own task ends after its answer
homeloop.default_runtime().residence().loop.call_soon_threadsafe(settled.set)
settled.wait()
print("ready", flush=True)
sys.stdin.read()
"""


def test_f5_a_process_tells_its_owner(start_process: Start, run_dir: Path) -> None:
    """The report, and what its threads and tasks do; the socket is the owner's alone and goes with it."""
    process = start_process(WORKER)
    report = ask_process(process.pid)
    assert (report["pid"], report["status"], report["pending_tasks"]) == (process.pid, "warning", 60)
    assert "-c" in report["command"]
    stacks = ask_process(process.pid, "stacks")
    assert {"MainThread", "homeloop", "homeloop-health"} <= {thread["name"] for thread in stacks["threads"]}
    assert len(stacks["tasks"]) == stacks["pending_tasks"] == 60
    assert stacks["tasks"][0]["coroutine"] == "poll_for_ever"
    assert stacks["tasks"][0]["waiting_at"][-1].endswith("Event.wait")
    path = run_dir / f"{process.pid}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    process.communicate(timeout=20)
    assert not path.exists()
    with pytest.raises(ProcessLookupError, match=f"process {process.pid} has no health monitor"):
        ask_process(process.pid)


def test_f5_ps_prints_loops_tasks_and_pools(
    start_process: Start, capsys: pytest.CaptureFixture[str], run_dir: Path
) -> None:
    """For people and for machines, of all processes or of one; the exit code tells whether all are healthy."""
    assert main(["ps"]) == 2
    assert "no process of yours has a started health monitor" in capsys.readouterr().err
    process, other = start_process(WORKER), start_process(WORKER)
    assert main(["ps"]) == 1
    told = capsys.readouterr().out
    for pid in (process.pid, other.pid):
        assert f"{pid}  warning  " in told
    assert "  loop      homeloop: runtime, running" in told
    assert "60 tasks" in told
    assert "  runtime   homeloop: 0 calls in flight" in told
    assert "  ! 'homeloop' (loop 1" in told

    assert main(["ps", "--json", str(process.pid)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["pending_tasks"] == 60

    assert main(["ps", "--stacks", str(process.pid)]) == 0
    told = capsys.readouterr().out
    assert "thread homeloop\n" in told
    assert "(poll_for_ever) on loop 1\n" in told
    assert main(["ps", "--stacks", "--json", str(process.pid)]) == 0
    assert len(json.loads(capsys.readouterr().out)["tasks"]) == 60

    assert main(["ps", "1"]) == 2
    assert "process 1 has not a started health monitor" in capsys.readouterr().err
    assert main(["ps", "--stacks"]) == 2
    assert main(["ps", "--stacks", "1"]) == 2


def test_f5_a_stopped_process_shows_as_such(
    start_process: Start, run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGSTOP it cannot answer; who asks is told in time."""
    process = start_process(WORKER)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    (found,) = local_processes(timeout=0.1)
    assert (found.pid, found.state) == (process.pid, "stopped")
    with pytest.raises(TimeoutError):
        ask_process(process.pid, timeout=0.1)
    assert main(["ps"]) == 1
    assert capsys.readouterr().out == f"{process.pid}  stopped\n"
    process.send_signal(signal.SIGCONT)
    (found,) = local_processes(timeout=20.0)
    assert found.state == "answered"


def test_f5_what_a_killed_process_left_is_removed(start_process: Start, run_dir: Path) -> None:
    """By the next one who asks for all."""
    process = start_process(WORKER)
    process.kill()
    process.wait(20)
    assert [path.name for path in run_dir.iterdir()] == [f"{process.pid}.sock"]
    assert local_processes() == ()
    assert list(run_dir.iterdir()) == []


def test_a_silent_process_is_told(run_dir: Path) -> None:
    """One that listens and does not answer, though it is not stopped."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / f"{os.getpid()}.sock"))
        listener.listen()
        (found,) = local_processes(timeout=0.05)
    assert (found.pid, found.state) == (os.getpid(), "silent")


@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_a_folder_that_is_not_the_owners_alone_is_refused(
    how: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens or asks there; a monitor watches all the same, and says why nobody can ask."""
    folder = run_dir / "folder"
    if how == "open to others":
        folder.mkdir()
        folder.chmod(0o755)
    elif how == "a link":
        folder.symlink_to(run_dir)
    else:
        folder.touch()
    monkeypatch.setenv("HOMELOOP_RUN_DIR", str(folder))
    with pytest.raises(PermissionError, match="its owner alone"):
        own_folder()
    assert main(["ps"]) == 2
    assert "its owner alone" in capsys.readouterr().err


UNASKED = """
import homeloop
monitor = homeloop.default_monitor()
monitor.start()
async def nothing(): pass
homeloop.run(nothing)
assert monitor.report().monitored
assert monitor.stop()
"""


def test_a_monitor_without_a_folder_watches(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns that nobody can ask."""
    monkeypatch.setenv("HOMELOOP_RUN_DIR", str(run_dir / "missing" / "folder"))
    ended = subprocess.run([sys.executable, "-c", UNASKED], capture_output=True, text=True, timeout=20, check=True)
    assert ended.stderr.startswith("homeloop ps will not see this process: ")


def test_folders_for_the_user(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has one for the user, it is there; else in the folder for temporary files."""
    monkeypatch.delenv("HOMELOOP_RUN_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_dir))
    folder = own_folder()
    assert folder == run_dir / f"homeloop-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(run_dir))
    assert own_folder() == folder


def test_visitors_that_misbehave_keep_nobody(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that leaves, one that asks for what there is not, one whose answer fails: the next is answered."""

    def fails() -> object:
        raise ZeroDivisionError

    door = Door({"report": lambda: {"status": "healthy"}, "stacks": fails})
    door.open()
    path = str(run_dir / f"{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as leaves:
        leaves.connect(path)
    with socket.socket(socket.AF_UNIX) as curious:
        curious.connect(path)
        curious.sendall(b"secrets\n")
        assert curious.recv(1) == b""
    with pytest.raises(ValueError, match="Expecting value"):
        ask_process(os.getpid(), "stacks")
    assert "could not answer" in caplog.text
    assert ask_process(os.getpid()) == {"status": "healthy"}
    door.close()
    assert list(run_dir.iterdir()) == []


def in_place_of_sockets(monkeypatch: pytest.MonkeyPatch, kind: type[socket.socket]) -> None:
    """Have the door listen by another kind of socket."""
    monkeypatch.setattr(
        _door, "real_socket", lambda: SimpleNamespace(socket=kind, AF_UNIX=socket.AF_UNIX, SHUT_WR=socket.SHUT_WR)
    )


def test_nobody_takes_a_door_that_is_being_opened_for_a_dead_ones(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks before it listens is refused by the system; that removes nothing."""

    class Asked(socket.socket):
        def listen(self, *backlog: int) -> None:
            assert local_processes() == ()
            super().listen(*backlog)

    in_place_of_sockets(monkeypatch, Asked)
    door = Door({"report": lambda: {"status": "healthy"}})
    door.open()
    try:
        assert [each.state for each in local_processes()] == ["answered"]
    finally:
        door.close()
    assert list(run_dir.iterdir()) == []


def test_a_door_that_cannot_listen_leaves_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, and no thread."""

    class Refused(socket.socket):
        def listen(self, *_: int) -> None:
            raise OSError(errno.ENOBUFS, "no room")

    in_place_of_sockets(monkeypatch, Refused)
    with pytest.raises(OSError, match="no room"):
        Door({}).open()
    assert list(run_dir.iterdir()) == []


def test_a_process_without_descriptors_answers_once_it_has_some(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The door rests, and lives: just then somebody wants to know what the process does."""
    failures = [errno.EMFILE, errno.ECONNABORTED]

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if failures:
                raise OSError(failures.pop(0), "no descriptors")
            return super().accept()

    in_place_of_sockets(monkeypatch, Exhausted)
    monkeypatch.setattr(_door, "_REST", 0.01)
    door = Door({"report": lambda: {"status": "healthy"}})
    door.open()
    try:
        assert ask_process(os.getpid(), timeout=20.0) == {"status": "healthy"}
    finally:
        door.close()
    assert caplog.text.count("homeloop ps cannot ask this process for 0.01 s") == 2
    assert list(run_dir.iterdir()) == []


def test_a_door_that_rests_is_closed_at_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits until there are descriptors again."""
    resting = threading.Event()

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            resting.set()
            raise OSError(errno.EMFILE, "no descriptors")

    in_place_of_sockets(monkeypatch, Exhausted)
    monkeypatch.setattr(_door, "_REST", 3600.0)
    door = Door({})
    door.open()
    assert resting.wait(20)
    door.close()
    assert door._thread is not None
    assert not door._thread.is_alive()


def test_an_answer_ends_though_a_child_was_forked_meanwhile(run_dir: Path) -> None:
    """The child has the visitor's socket, too: the end of the answer is told all the same."""
    reader, writer = os.pipe()
    children: list[int] = []

    def forks() -> object:
        child = os.fork()
        if not child:
            os.read(reader, 1)
            os._exit(0)
        children.append(child)
        return {"status": "healthy"}

    door = Door({"report": forks})
    door.open()
    try:
        assert ask_process(os.getpid(), timeout=5.0) == {"status": "healthy"}
    finally:
        os.write(writer, b"!")
        for child in children:
            os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        door.close()


def test_a_loop_that_is_blocked_does_not_keep_the_answer(
    runtime: LoopRuntime, run_dir: Path, start_process: Start
) -> None:
    """The door is a thread of its own."""
    process = start_process(
        """
        import sys
        import homeloop
        homeloop.default_monitor().start()
        async def blocks():
            print("ready", flush=True)
            sys.stdin.read()
        homeloop.run(blocks)
        """
    )
    report = ask_process(process.pid, timeout=20.0)
    assert report["calls_in_flight"] == 1
    stacks = ask_process(process.pid, "stacks", timeout=20.0)
    (stack,) = (thread["stack"] for thread in stacks["threads"] if thread["name"] == "homeloop")
    assert any(frame.endswith("in blocks") for frame in stack)
