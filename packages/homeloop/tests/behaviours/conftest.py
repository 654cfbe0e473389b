"""What the scenario suite needs: each kind of loop, inside this process and in processes of their own."""

import asyncio
import re
import subprocess
from collections.abc import Callable
from importlib.util import find_spec

import pytest

DEADLINE = 60.0  # seconds; tells a hang from an answer, also on a loaded machine

KINDS = [
    "asyncio",
    pytest.param(
        "uvloop", marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")
    ),
]

PRELUDE = """
import asyncio, atexit, concurrent.futures, contextvars, gc, logging, os, signal, sys, threading, warnings
# Python 3.12 warns of every fork beside a thread; forking beside one is what these scenarios are about.
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
# Debug mode tells which steps took longer than a tenth of a second: that is about the machine, not about us.
logging.getLogger("asyncio").setLevel(logging.ERROR)
if LOOP_KIND == "uvloop":
    import uvloop
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
import homeloop
from homeloop import LoopRuntime
from homeloop.errors import *

async def identity(thing):
    await asyncio.sleep(0)
    return thing

def child(work):
    # Run `work` in a forked child that ends through full finalization; return its exit code.
    number = os.fork()
    if number == 0:
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
"""

Scenario = Callable[..., list[str]]


@pytest.fixture(params=KINDS)
def loop_kind(request: pytest.FixtureRequest) -> str:
    """The name of a kind of loop."""
    return str(request.param)


@pytest.fixture
def loop_factory(loop_kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop of each kind."""
    if loop_kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


@pytest.fixture
def scenario(script: "Callable[..., subprocess.CompletedProcess[str]]", loop_kind: str) -> Scenario:
    """
    Run a script in a process of its own, on each kind of loop; return the lines it printed.

    It must end with exit code 0 and nothing on stderr, before the deadline.
    """

    def run(source: str, **environment: str) -> list[str]:
        prelude = f"LOOP_KIND = {loop_kind!r}\n{PRELUDE}"
        ended = script(prelude + source, timeout=DEADLINE, **environment)
        assert ended.stderr == ""
        assert ended.returncode == 0
        return ended.stdout.splitlines()

    return run


_PROMISE = re.compile(r"test_([a-z]\d\d)_")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List every promise that was put to the test, by id, and how it came out."""
    outcomes: dict[str, str] = {}
    for outcome in ("passed", "skipped", "failed", "error"):  # the worse one of several runs counts
        for report in terminalreporter.getreports(outcome):
            if match := _PROMISE.search(getattr(report, "nodeid", "").rpartition("::")[2]):
                outcomes[match[1].upper()] = outcome
    if not outcomes:
        return
    terminalreporter.section("promises of BEHAVIOURS", sep="-")
    for outcome in ("passed", "skipped", "failed", "error"):
        ids = sorted(each for each, came_out in outcomes.items() if came_out == outcome)
        if ids:
            terminalreporter.line(f"{outcome} ({len(ids)}): {' '.join(ids)}")
