"""F5, ``homeloop top``: a live table in a terminal, told by keys what to show; else printed once."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from homeloop import LocalProcess
from homeloop.cli import main
from homeloop.cli._top import _ask_stacks, _read_keys
from homeloop.cli._top_screen import Screen

Start = Callable[[str], "subprocess.Popen[str]"]
BOUND = 60.0  # seconds

WORKER = """
import asyncio, sys, threading
import homeloop

kept = []
few, many = homeloop.LoopRuntime(name="few[b]"), homeloop.LoopRuntime(name="many")
lent = homeloop.LoopLocal(asyncio.Event, name="events")

async def poll_for_ever():
    await asyncio.Event().wait()

async def start(number):
    await lent.get()
    kept.extend(asyncio.create_task(poll_for_ever()) for _ in range(number))

homeloop.default_monitor().start()
few.run(start, 3)
many.run(start, 60)
print("ready", flush=True)
sys.stdin.read()
"""


class Terminal:
    """A terminal of 40 lines and 120 columns, in which a command runs."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        self._theirs = theirs
        self._heard = ""

    def close(self) -> None:
        """End the command."""
        self.process.kill()
        self.process.wait(BOUND)
        os.close(self._ours)
        os.close(self._theirs)

    def press(self, keys: str) -> None:
        """Press keys; what was shown before does not count any more."""
        self._heard = ""
        os.write(self._ours, keys.encode())

    def see(self, *wanted: str) -> str:
        """Return what is shown once all of it was shown, in this order."""
        deadline = time.monotonic() + BOUND
        while not self._seen(wanted):
            rest = max(deadline - time.monotonic(), 0.0)
            assert select.select([self._ours], [], [], rest)[0], f"no {wanted} in {self._heard!r}"
            self._heard += os.read(self._ours, 65536).decode("utf-8", "replace")
        return self._heard

    def _seen(self, wanted: tuple[str, ...]) -> bool:
        at = 0
        for each in wanted:
            at = self._heard.find(each, at)
            if at < 0:
                return False
        return True

    def wait(self) -> int:
        """Return the exit code, when the terminal is as it was before."""
        code = self.process.wait(BOUND)
        assert termios.tcgetattr(self._theirs) == self._before
        return code


@pytest.fixture
def top() -> Iterator[Callable[..., Terminal]]:
    """Start ``homeloop top`` in a terminal."""
    opened: list[Terminal] = []

    def start(pid: int, *options: str) -> Terminal:
        command = (sys.executable, "-m", "homeloop", "top", str(pid), "--interval", "0.1", *options)
        opened.append(Terminal(*command))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_f5_top_shows_loops_and_looks_into_one(start_process: Start, top: Callable[..., Terminal]) -> None:
    """Keys sort the loops, choose one, show its tasks, and those of all; the terminal is as before in the end."""
    process = start_process(WORKER)
    terminal = top(process.pid, "--timeout", str(BOUND))
    shown = terminal.see(
        f"{process.pid}  warning", "lag p99 \u25be", "  resource  events", "pending tasks", "(q)uit"
    )
    assert "few[b]" in shown
    terminal.press("t")
    terminal.see("tasks \u25be", "many", "few")
    terminal.press("n")
    terminal.see("name \u25be", "few", "many")
    terminal.press("\x1b[B\r")  # down, enter: the second one
    terminal.see("  loop      many: runtime, running", "60 of poll_for_ever()", "thread many", "task Task-")
    terminal.press("\x1b[B")
    terminal.see("60 of poll_for_ever()", "thread many")
    terminal.press("\x1b")
    terminal.see("name \u25be", "few", "many")
    terminal.press("s")
    terminal.see("thread MainThread")
    terminal.press("q")
    assert terminal.wait() == 1


def test_f5_top_tells_of_a_stopped_process_and_of_one_that_ended(
    start_process: Start, top: Callable[..., Terminal]
) -> None:
    """It goes on while the process is stopped, and ends with it."""
    process = start_process(WORKER)
    terminal = top(process.pid, "--timeout", "1")
    terminal.see("(q)uit")
    process.send_signal(signal.SIGSTOP)
    terminal.see(f"{process.pid}  stopped")
    terminal.press("s")  # nobody can be asked
    terminal.see(f"{process.pid}  stopped")
    process.kill()
    process.wait(BOUND)
    terminal.see(f"homeloop top: process {process.pid} has no health monitor that can be asked")
    assert terminal.wait() == 2


def test_f5_top_ends_with_ctrl_c(start_process: Start, top: Callable[..., Terminal]) -> None:
    """The terminal is as before, and no traceback is shown."""
    process = start_process(WORKER)
    terminal = top(process.pid, "--timeout", str(BOUND))
    terminal.see("(q)uit")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.see("\x1b[?1049l")


def test_f5_top_prints_once_where_there_is_no_terminal(
    start_process: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for a file or a pipe; nobody there has keys."""
    process = start_process(WORKER)
    assert main(["top", str(process.pid), "--timeout", str(BOUND)]) == 1
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert f"{process.pid}  warning" in told
    assert "lag p99" in told
    assert "60 of poll_for_ever(); bound them with a semaphore" in told
    assert "(q)uit" not in told
    process.communicate(timeout=BOUND)
    assert main(["top", str(process.pid)]) == 2
    assert "has no health monitor that can be asked" in capsys.readouterr().err


def test_f5_top_says_what_to_install(script: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    """Without rich, which the core does not need."""
    ended = script("""
        import sys
        sys.modules["rich"] = None
        from homeloop.cli import main
        sys.exit(main(["top", "1"]))
    """)
    assert (ended.returncode, ended.stderr) == (2, "homeloop top: it needs rich; pip install 'homeloop[top]'\n")


def test_keys_that_mean_nothing_do_nothing() -> None:
    """Nor do those that choose while there is nothing to choose."""
    screen = Screen()
    for key in ("x", "up", "down", "enter", "esc"):
        screen.press(key)
    assert screen == Screen()
    screen.press("s")
    screen.press("up")
    screen.press("t")
    assert screen == Screen(page="stacks")


def test_a_loop_that_is_gone_is_told_as_such() -> None:
    """While somebody looks into it; Esc leads back to those that there are."""
    report: dict[str, Any] = {"pid": 7, "status": "healthy", "command": "shop", "loops": []}
    report |= {"runtimes": [], "resources": [], "counts": {}, "recommendations": []}
    process = LocalProcess(7, "answered", report)
    stacks = {"threads": [], "tasks": [], "pending_tasks": 0}
    console = Console(width=80)
    screen = Screen(page="loop", chosen=3)
    with console.capture() as capture:
        console.print(screen.render(process, None, 20))
        console.print(screen.render(process, stacks, 20))
    assert "no answer yet" in capture.get()
    assert "this loop is gone" in capture.get()
    screen.press("esc")
    with console.capture() as capture:
        console.print(screen.render(process, stacks, 20))
    assert "7  healthy  shop" in capture.get()


def test_keys_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that come together; a terminal that is gone ends it."""
    theirs, ours = os.pipe()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        os.write(ours, b"t\x1b[B\x1b[A\x1b\rs")
        assert _read_keys() == ["t", "down", "up", "esc", "enter", "s"]
        os.close(ours)
        assert _read_keys() == ["q"]


def test_a_process_that_cannot_be_asked_any_more_has_no_stacks() -> None:
    """The next look tells why."""
    assert _ask_stacks(LocalProcess(1, "answered", {}), 0.1) is None
    assert _ask_stacks(LocalProcess(1, "silent", {}), 0.1) is None
