"""
Show how each of four faults is named: by the health report, Prometheus' metrics, ``homeloop ps``, ``homeloop top``
and the live page.

Starts `faulty.py`, waits for two assessments of its monitor, asks in the five ways, and stops it with SIGSTOP in
the end, which ``homeloop ps``, ``homeloop top`` and another process's page tell, too. Exits with 1 if anything is
not named. With ``--stay`` it leaves the faulty process and the page there to be looked at, until Ctrl-C.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from homeloop import HealthPage, ask_process

BOUND = 60.0  # seconds
HOMELOOP = (sys.executable, "-m", "homeloop")

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
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as faulty,
        HealthPage(pid=faulty.pid) as page,
    ):
        try:
            assert faulty.stdout is not None
            port = int(faulty.stdout.readline())
            assert faulty.stdout.readline() == "assessed twice\n"
            told = {
                "health JSON": list(findings(ask_process(faulty.pid, timeout=BOUND))),
                "Prometheus": metrics(port),
                "homeloop ps": homeloop("ps", faulty.pid, "--timeout", str(BOUND)),
                "homeloop top": homeloop("top", faulty.pid, "--timeout", str(BOUND)),
                "page": list(findings(look(page, lambda process: process["state"] == "answered")["report"])),
            }
            missing = [line for fault, signs in FAULTS.items() for line in show(fault, signs, told)]
            if "--stay" in sys.argv:
                print(f"\nlook at it: {page.address}\n(Ctrl-C ends it)", flush=True)
                with suppress(KeyboardInterrupt):
                    faulty.wait()
            faulty.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, faulty.pid, os.WSTOPPED | os.WNOWAIT)
            missing += show_stopped(faulty.pid, page)
        finally:
            faulty.kill()
    print("\n" + (f"NOT NAMED: {', '.join(missing)}" if missing else "every fault was named by each of the five"))
    return int(bool(missing))


def findings(report: dict[str, Any]) -> Iterator[str]:
    """Return what a report has found."""
    for each in report["findings"]:
        yield f"{each['kind']} ({each['status']}): {each['fact']}"


def metrics(port: int) -> list[str]:
    """Return what Prometheus would read."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=BOUND) as answer:
        return list(answer.read().decode().splitlines())


def homeloop(command: str, pid: int, *options: str) -> list[str]:
    """Return what a command of homeloop prints of a process."""
    asked = [*HOMELOOP, command, str(pid), *options]
    ended = subprocess.run(asked, stdout=subprocess.PIPE, text=True, timeout=BOUND, check=False)
    return ended.stdout.splitlines()


def look(page: HealthPage, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what the page shows of its process, once it is what is wanted."""
    address = page.address.partition("#")[0]
    asked = Request(f"{address}events", headers={"Authorization": f"Bearer {page.token}"})
    with urlopen(asked, timeout=BOUND) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                process: dict[str, Any] = json.loads(line.removeprefix(b"data: "))["process"]
                if wanted(process):
                    return process
    raise EOFError("the page has ended")


def show(fault: str, signs: tuple[str, str, str], told: dict[str, list[str]]) -> Iterator[str]:
    """Print how a fault is named; return who did not."""
    kind, subject, figure = signs
    finding = (kind + " (", subject)
    wanted = {
        "health JSON": finding,
        "Prometheus": (figure, ""),
        "homeloop ps": ("  ! ", subject),
        "homeloop top": ("  ! ", subject),
        "page": finding,
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


def show_stopped(pid: int, page: HealthPage) -> Iterator[str]:
    """Print how a stopped process is told; return who did not."""
    told = {
        "homeloop ps": " ".join(homeloop("ps", pid)),
        "homeloop top": " ".join(homeloop("top", pid)),
        "page": " ".join(map(str, look(page, lambda process: process["state"] != "answered").values())),
    }
    print("\nthe process is stopped (kill -STOP)")
    for who, words in told.items():
        print(f"  {who:<13} {words.strip()}")
        if words.split() != [str(pid), "stopped"]:
            yield f"the stopped process by {who}"


if __name__ == "__main__":
    sys.exit(main())
