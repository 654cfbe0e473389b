"""The supervisor: what it starts ends with it, in order and in bounded time, and never silently."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from workflow_service.local.children import Command
from workflow_service.local.errors import ChildDiedError, LocalError, StopRequestedError
from workflow_service.local.home import Home
from workflow_service.local.records import ProcessRecord, end_recorded
from workflow_service.local.supervisor import Supervisor

from .conftest import Supervised, eventually, lives

Supervise = Callable[..., Supervised]

# Notes each signal it gets in the home, and ends at SIGTERM.
POLITE = """
import os, signal, sys
def note(number, frame):
    with open("signals", "a") as file:
        file.write(f"{NAME} {signal.Signals(number).name}\\n")
    if number == signal.SIGTERM:
        sys.exit(0)
signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
open(f"{NAME} is up", "w").close()
while True:
    signal.pause()
"""

# Ignores SIGTERM, and so does a process it starts in its session.
STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
with open("inner.new", "w") as file:
    file.write(str(inner.pid))
os.rename("inner.new", "inner")
while True:
    signal.pause()
"""


def polite(name: str, **spec: Any) -> dict[str, Any]:
    return {"name": name, "code": f"NAME = {name!r}\n{POLITE}", **spec}


def wait_up(home: Home, *names: str) -> None:
    for name in names:
        eventually((home.path / f"{name} is up").exists, f"{name} runs")


def inner_pid(home: Home) -> int:
    eventually((home.path / "inner").exists, "the inner process runs")
    return int((home.path / "inner").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_everything_in_reverse_order(
    home: Home, supervise: Supervise, number: signal.Signals
) -> None:
    """Each stop signal ends the children, the last started first, and the supervisor says which signal it was."""
    supervised = supervise(polite("first"), polite("second"))
    pids = supervised.told("pids")
    wait_up(home, "first", "second")

    supervised.process.send_signal(number)

    assert supervised.told("stopped") == number
    assert supervised.wait() == 0
    assert (home.path / "signals").read_text() == "second SIGTERM\nfirst SIGTERM\n"
    assert not any(lives(pid) for pid in pids.values())
    assert not list(home.processes.iterdir())


def test_ctrl_c_of_a_terminal_reaches_the_supervisor_alone(home: Home, supervise: Supervise) -> None:
    """Children are told by the supervisor, in order; the terminal's own SIGINT does not get to them."""
    supervised = supervise(polite("first"), polite("second"))
    wait_up(home, "first", "second")

    supervised.interrupt()

    assert supervised.wait() == 0
    assert (home.path / "signals").read_text() == "second SIGTERM\nfirst SIGTERM\n"


def test_child_that_ignores_sigterm_is_killed_with_its_children(home: Home, supervise: Supervise) -> None:
    """After the bound comes SIGKILL, for the whole group."""
    supervised = supervise({"name": "stubborn", "code": STUBBORN, "bound": 0.2})
    pid, inner = supervised.told("pids")["stubborn"], inner_pid(home)

    supervised.process.terminate()

    assert supervised.wait() == 0
    assert not lives(pid)
    eventually(lambda: not lives(inner), "the inner process has ended")


def test_second_ctrl_c_hastens(home: Home, supervise: Supervise) -> None:
    """A child may take long to end, but not once the user has asked twice."""
    slow = f"NAME = 'slow'\n{POLITE.replace('sys.exit(0)', 'pass')}"
    supervised = supervise({"name": "slow", "code": slow, "bound": 3600})
    pid = supervised.told("pids")["slow"]
    wait_up(home, "slow")

    supervised.process.send_signal(signal.SIGINT)
    # Pending signals of one kind are one: the second counts only after the first has had its effect.
    eventually((home.path / "signals").exists, "the child has been told to end")
    supervised.process.send_signal(signal.SIGINT)

    assert supervised.wait() == 0
    assert not lives(pid)


def test_dying_child_ends_everything_and_shows_its_log(home: Home, supervise: Supervise) -> None:
    """The end of a vital child stops the others and fails with its exit code and the last lines of its log."""
    dying = "import pathlib\nwhile not pathlib.Path('go').exists(): pass\nraise SystemExit('out of cheese')"
    supervised = supervise(polite("other"), {"name": "dying", "code": dying})
    other = supervised.told("pids")["other"]
    wait_up(home, "other")

    (home.path / "go").touch()

    told = _error(supervised)
    assert "dying (process " in told["error"]
    assert "exited with 1" in told["error"]
    assert told["tail"] == "out of cheese"
    assert supervised.wait() == 1
    assert not lives(other)


def test_what_rests_on_a_database_that_died_is_stopped_in_haste(home: Home, supervise: Supervise) -> None:
    """Without PostgreSQL nobody can finish anything: nobody is given the hour that finishing may take."""
    slow = f"NAME = 'slow'\n{POLITE.replace('sys.exit(0)', 'pass')}"
    supervised = supervise({"name": "slow", "code": slow, "bound": 3600}, postgresql=True)
    pids = supervised.told("pids")
    wait_up(home, "slow")

    os.kill(pids["PostgreSQL"], signal.SIGKILL)

    assert f"PostgreSQL (process {pids['PostgreSQL']}) was ended by SIGKILL" in _error(supervised)["error"]
    assert supervised.wait() == 1
    assert not lives(pids["slow"])


def test_child_killed_by_a_signal_is_named_so(supervise: Supervise) -> None:
    """The message names the signal that ended a child."""
    supervised = supervise(polite("victim"))
    os.kill(supervised.told("pids")["victim"], signal.SIGKILL)

    assert "was ended by SIGKILL" in _error(supervised)["error"]


def test_child_that_is_not_vital_is_reported_and_the_rest_goes_on(home: Home, supervise: Supervise) -> None:
    """A worker may die: it is reported at once, and everything else keeps running until it is stopped."""
    supervised = supervise(polite("api"), polite("worker", vital=False))
    pids = supervised.told("pids")
    wait_up(home, "api", "worker")

    os.kill(pids["worker"], signal.SIGKILL)

    died = supervised.told("died")
    assert died.startswith(
        f"worker (process {pids['worker']}) was ended by SIGKILL (by somebody, or by the kernel"
    )
    assert lives(pids["api"])
    supervised.process.terminate()
    assert supervised.wait() == 0


def test_killed_supervisor_leaves_nothing_after_the_next_start(home: Home, supervise: Supervise) -> None:
    """kill -9 of the supervisor cannot be noticed; its successor ends what is left, stubborn ones too."""
    first = supervise(polite("polite"), {"name": "stubborn", "code": STUBBORN, "bound": 0.2})
    pids, inner = first.told("pids"), inner_pid(home)
    wait_up(home, "polite")
    first.process.kill()
    first.wait()
    assert all(lives(pid) for pid in pids.values())

    second = supervise(polite("new"))

    new = second.told("pids")["new"]
    assert not any(lives(pid) for pid in pids.values())
    assert not lives(inner)
    assert lives(new)


def test_leftover_of_a_dead_child_is_ended_too(home: Home, supervise: Supervise) -> None:
    """When both the supervisor and its child were killed, what that child had started is found by its session."""
    first = supervise({"name": "stubborn", "code": STUBBORN})
    pid, inner = first.told("pids")["stubborn"], inner_pid(home)
    first.process.kill()
    first.wait()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not lives(pid), "the child has ended")
    assert lives(inner)

    supervise(polite("new")).told("pids")

    assert not lives(inner)


def test_process_that_only_has_a_recorded_pid_is_left_alone(home: Home) -> None:
    """A pid is used again by others: a record whose start time differs names nobody."""
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        created = psutil.Process(stranger.pid).create_time() - 3600
        ProcessRecord("api", stranger.pid, created, ("api",), ((int(signal.SIGTERM), 1.0),)).save(home)

        assert asyncio.run(end_recorded(home)) == []

        assert lives(stranger.pid)
        assert not list(home.processes.iterdir())
    finally:
        stranger.kill()
        stranger.wait()


def test_second_supervisor_on_a_home_is_refused(supervise: Supervise) -> None:
    """One home, one supervisor; the refusal names the process to stop."""
    first = supervise(polite("first"))
    first.told("pids")

    told = _error(supervise(polite("second")))

    assert f"process {first.process.pid}" in told["error"]
    assert "--home" in told["error"]


def test_stop_request_cancels_the_body_and_waits_for_its_cleanup(home: Home) -> None:
    """What runs under the supervisor is cancelled by a signal and cleans up before the children are stopped."""
    seen: list[str] = []

    async def body() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    async def main() -> None:
        async with Supervisor(home) as supervisor:
            await supervisor.run(body)

    with home.locked(), pytest.raises(StopRequestedError):
        asyncio.run(main())
    assert seen == ["cleaned up"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_cause_is_preferred_to_its_echo(home: Home) -> None:
    """When a client fails because its server died, the server's death is what is reported."""

    async def main() -> None:
        async with Supervisor(home) as supervisor:

            async def body() -> None:
                server = supervisor.start(_command(home, "import signal; signal.pause()"))
                os.kill(server.pid, signal.SIGKILL)
                raise ConnectionResetError("the echo")

            await supervisor.run(body)

    with home.locked(), pytest.raises(ChildDiedError, match="was ended by SIGKILL"):
        asyncio.run(main())


def test_program_that_cannot_be_started_is_named(home: Home) -> None:
    """The message says which part and which program; what was started before is stopped."""

    async def main() -> None:
        async with Supervisor(home) as supervisor:
            missing = Command("the API", ("/nowhere/python",), home.logs / "api.log", {}, cwd=home.path)
            supervisor.start(missing)

    with home.locked(), pytest.raises(LocalError, match=r"the API could not be started.*nowhere"):
        asyncio.run(main())


def test_ignored_signal_stays_ignored(home: Home, supervise: Supervise) -> None:
    """Started with nohup, the supervisor outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        supervised = supervise(polite("child"))
    finally:
        signal.signal(signal.SIGHUP, before)
    supervised.told("pids")
    supervised.process.send_signal(signal.SIGHUP)
    supervised.process.send_signal(signal.SIGTERM)

    assert supervised.told("stopped") == signal.SIGTERM


def _error(supervised: Supervised) -> dict[str, Any]:
    while "error" not in (line := supervised.next_line()):
        pass
    return line


def _command(home: Home, code: str) -> Command:
    return Command("the server", (sys.executable, "-c", code), home.logs / "server.log", {}, cwd=home.path)
