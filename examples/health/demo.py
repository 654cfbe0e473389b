"""
Show how each of four faults is named, by the health report, by Prometheus' metrics and by ``homeloop ps``.

Starts `faulty.py`, waits for two assessments of its monitor, asks in the three ways, and stops it with SIGSTOP in
the end, which ``homeloop ps`` tells, too. Exits with 1 if anything is not named.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from homeloop import ask_process

BOUND = 60.0  # seconds

FAULTS = {
    "a loop is blocked": ("loop-blocked", "'checkout'", 'asyncio_eventloop_blocked_seconds{loop="checkout"'),
    "tasks pile up": ("tasks-piling-up", "'mails'", 'asyncio_eventloop_tasks_pending{loop="mails"'),
    "a pool is exhausted": ("pool-exhausted", "pool orders", 'homeloop_pool_waiting{resource="orders"'),
    "another loop's queue is used": (
        "loop-fault",
        "asyncio.queues.Queue",
        'homeloop_events_total{event="LoopFault"',
    ),
}
"""The kind of the finding, what it must name, and the figure that Prometheus must have."""


def main() -> int:
    """Run the demo; return the exit code."""
    command = [sys.executable, str(Path(__file__).with_name("faulty.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as faulty:
        try:
            assert faulty.stdout is not None
            port = int(faulty.stdout.readline())
            assert faulty.stdout.readline() == "assessed twice\n"
            told = {
                "health JSON": list(findings(faulty.pid)),
                "Prometheus": metrics(port),
                "homeloop ps": ps(faulty.pid, "--timeout", str(BOUND)),
            }
            missing = [line for fault, signs in FAULTS.items() for line in show(fault, signs, told)]
            faulty.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, faulty.pid, os.WSTOPPED | os.WNOWAIT)
            stopped = ps(faulty.pid)
            print("\nthe process is stopped (kill -STOP)\n  homeloop ps   " + "\n".join(stopped))
            if stopped != [f"{faulty.pid}  stopped"]:
                missing.append("the stopped process")
        finally:
            faulty.kill()
    print("\n" + (f"NOT NAMED: {', '.join(missing)}" if missing else "every fault was named by each of the three"))
    return int(bool(missing))


def findings(pid: int) -> Iterator[str]:
    """Return what the report of a process has found."""
    for each in ask_process(pid, timeout=BOUND)["findings"]:
        yield f"{each['kind']} ({each['status']}): {each['fact']}"


def metrics(port: int) -> list[str]:
    """Return what Prometheus would read."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=BOUND) as answer:
        return list(answer.read().decode().splitlines())


def ps(pid: int, *options: str) -> list[str]:
    """Return what ``homeloop ps`` prints of a process."""
    command = [sys.executable, "-m", "homeloop", "ps", str(pid), *options]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=BOUND, check=False)
    return ended.stdout.splitlines()


def show(fault: str, signs: tuple[str, str, str], told: dict[str, list[str]]) -> Iterator[str]:
    """Print how a fault is named; return who did not."""
    kind, subject, figure = signs
    wanted = {
        "health JSON": (kind + " (", subject),
        "Prometheus": (figure, ""),
        "homeloop ps": ("  ! ", subject),
    }
    count = f'homeloop_health_findings{{kind="{kind}"}} 1.0'
    print(f"\n{fault}")
    for who, (start, part) in wanted.items():
        lines = [line for line in told[who] if line.startswith(start) and part in line]
        if who == "Prometheus" and count in told[who]:
            lines.append(count)
        print("\n".join(f"  {who:<13} {line.strip()}" for line in lines) or f"  {who:<13} NOTHING")
        if len(lines) < 1 + (who == "Prometheus"):
            yield f"{fault} by {who}"


if __name__ == "__main__":
    sys.exit(main())
