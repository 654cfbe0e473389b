"""``homeloop top``: the event loops of one process, live in a terminal."""

import argparse
import os
import select
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homeloop import LocalProcess, ask_process, local_processes

if TYPE_CHECKING:
    from homeloop.cli._top_screen import Figures, Screen

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]

_KEYS = {
    "\x1b": "esc",
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\r": "enter",
    "\n": "enter",
}
"""What terminals send for keys without a letter."""


def add_to(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "top",
        help="watch the event loops of a process in the terminal",
        description=(
            "Ask a process that has a started health monitor again and again; once where there is no terminal. "
            "Exits with 1 if it is not healthy at the end."
        ),
    )
    parser.add_argument("pid", type=int, metavar="PID", help="the process; `homeloop ps` lists them")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="how often the process is asked (1)"
    )
    parser.add_argument(
        "--timeout", type=float, default=2.0, metavar="SECONDS", help="how long it may take to answer (2)"
    )
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    try:
        from homeloop.cli._top_screen import Screen
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        sys.stderr.write("homeloop top: it needs rich; pip install 'homeloop[top]'\n")
        return 2
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            process = _watch(Screen(), chosen.pid, chosen.interval, chosen.timeout)
        else:
            process = _show_once(Screen(), chosen.pid, chosen.timeout)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"homeloop top: {error}\n")
        return 2
    return int(process.report.get("status") != "healthy")


def _ask(pid: int, timeout: float) -> LocalProcess:
    """Ask how a process is. Raises ProcessLookupError if there is nobody to ask."""
    for process in local_processes(timeout, [pid]):
        return process
    raise ProcessLookupError(f"process {pid} has no health monitor that can be asked")


def _show_once(screen: "Screen", pid: int, timeout: float) -> LocalProcess:
    from rich.console import Console

    process = _ask(pid, timeout)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(screen.render(process, None, None), soft_wrap=True)  # whoever reads a pipe wants whole lines
    return process


def _watch(screen: "Screen", pid: int, interval: float, timeout: float) -> LocalProcess:
    """Show a process until the user has seen enough; return what it told last."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    with _keys_at_once(), Live(console=console, screen=True, auto_refresh=False) as live:
        process, stacks, due = _ask(pid, timeout), None, time.monotonic() + interval
        while not screen.ended:
            if time.monotonic() >= due:
                process, due = _ask(pid, timeout), time.monotonic() + interval
                stacks = None
            if screen.wants_stacks and stacks is None:
                stacks = _ask_stacks(process, timeout)
            live.update(screen.render(process, stacks, console.height), refresh=True)
            if select.select([sys.stdin], [], [], max(due - time.monotonic(), 0.0))[0]:
                for key in _read_keys():
                    screen.press(key)
    return process


def _ask_stacks(process: LocalProcess, timeout: float) -> "Figures | None":
    try:
        return ask_process(process.pid, "stacks", timeout) if process.state == "answered" else None
    except (ProcessLookupError, TimeoutError):  # it was stopped, or ended, meanwhile: the next look tells
        return None


@contextmanager
def _keys_at_once() -> Generator[None]:
    """Have keys told when they are pressed, and not shown."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _read_keys() -> list[str]:
    """Return the keys that were pressed; a terminal that is gone counts as a wish to quit."""
    sent = os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace")
    if not sent:
        return ["q"]
    keys: list[str] = []
    while sent:
        length = 3 if sent[:3] in _KEYS else 1
        keys.append(_KEYS.get(sent[:length], sent[:length]))
        sent = sent[length:]
    return keys
