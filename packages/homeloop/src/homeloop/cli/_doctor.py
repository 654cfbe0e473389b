"""``homeloop doctor -- COMMAND``: run a program and tell of the loop faults in it."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homeloop.cli._doctor_child import LOG, QUIET, SITE
from homeloop.diagnosis import explain_all

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]

_FOUND = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_to(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="run a program and tell of the loop faults in it",
        usage="homeloop doctor [--json] [--exit-code {findings,command}] -- COMMAND [ARGUMENT ...]",
        description="Run a Python program, and every Python process it starts, at the highest level of tracing. "
        "Faults are shown on stderr as they happen and counted at the end. The program's output is left alone.",
        epilog="examples: homeloop doctor -- python app.py;  homeloop doctor -- celery -A app worker;  "
        "homeloop doctor --json -- pytest tests.  Exit code: 1 if something was found, else the command's.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings at the end, as lines of JSON")
    parser.add_argument(
        "--exit-code",
        choices=("findings", "command"),
        default="findings",
        help="whose result decides; default: findings",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, after --")
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    if not command:
        sys.stderr.write(
            "homeloop doctor: name a command to run, for instance: homeloop doctor -- python app.py\n"
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="homeloop-doctor-") as folder:
        log = Path(folder) / "findings.jsonl"
        try:
            ended = _run_command(command, _environment(log, quiet=chosen.json))
        except OSError as error:
            is_script = command[0].endswith(".py") and Path(command[0]).is_file()
            hint = f"; try: homeloop doctor -- python {shlex.join(command)}" if is_script else ""
            sys.stderr.write(f"homeloop doctor: {command[0]!r} cannot be run: {error.strerror}{hint}\n")
            return 2
        watched = log.exists()
        findings = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if watched else []
    if chosen.json:
        sys.stdout.write("".join(f"{json.dumps(each)}\n" for each in findings))
    else:
        sys.stderr.write(_summary(findings, ended, watched))
    if chosen.exit_code == "command" or not findings:
        return ended if ended >= 0 else 128 - ended
    return _FOUND


def _environment(log: Path, *, quiet: bool) -> dict[str, str]:
    paths = [SITE, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), LOG: str(log)}
    return environment | {QUIET: "1"} if quiet else environment


def _run_command(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; signals that we are sent meanwhile go on to it, what we ignore it ignores."""
    if command[0] in ("python", "python3"):
        command = [sys.executable, *command[1:]]  # the one that has homeloop
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, frame: object) -> None:
        if process is None:
            early.append(number)
        elif number != signal.SIGINT or not _shares_terminal():
            process.send_signal(number)

    before = {number: signal.getsignal(number) for number in _FORWARDED}
    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]  # ignored under nohup
    for number in heard:
        signal.signal(number, forward)
    try:
        with subprocess.Popen(command, env=environment) as process:
            for each in early:
                process.send_signal(each)
            return process.wait()
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _shares_terminal() -> bool:
    """Say whether Ctrl-C reaches the command too, because both of us are in the terminal's foreground."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have none
        return str(number)


def _summary(findings: list[dict[str, Any]], ended: int, watched: bool) -> str:
    how = f"signal {_signal_name(-ended)}" if ended < 0 else f"exit code {ended}"
    if not watched:
        return (
            f"homeloop doctor: the program ended with {how}; it was not watched: no Python that has homeloop ran\n"
        )
    if not findings:
        return f"homeloop doctor: the program ended with {how}; no loop faults were found\n"
    titles = dict(line.split("  ", 1) for line in explain_all().splitlines())
    counts: dict[str, int] = {}
    for each in findings:
        code = each["finding"]["code"]
        counts[code] = counts.get(code, 0) + 1
    lines = [f"homeloop doctor: the program ended with {how}; loop faults, by kind and place:"]
    lines += [f"  {code}  {count} x  {titles[code]}" for code, count in sorted(counts.items())]
    return "\n".join([*lines, "  homeloop explain CODE tells more", ""])
