"""Processes that do not start, or that end between two calls: the error says why, and the next call works."""

import asyncio
import functools
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import isolated_work as work
import psutil
import pytest
from processes_seen import appears, wait_gone
from waiting import DEADLINE, until

from homeloop import Isolation, IsolationExecutor
from homeloop.errors import IsolationError, NotTransferableError, WorkerDiedError, WorkerStartError
from homeloop.isolation import _crew, _forge

PROCESS = Isolation.PROCESS

ENDINGS: dict[str, tuple[str, str, int, str]] = {
    "raises": ("raise RuntimeError('no licence')", "ended with exit code 1", 1, "RuntimeError: no licence"),
    "exits": ("sys.exit(7)", "ended with exit code 7", 7, ""),
    "leaves": ("os._exit(9)", "ended with exit code 9", 9, ""),
    "aborts": ("os.abort()", "killed by signal 6 (SIGABRT)", -6, ""),
    "from C": ("os.write(2, b'fatal: bad chip'); os._exit(3)", "ended with exit code 3", 3, "fatal: bad chip"),
}


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> tuple[str, str, int, str]:
    """Ways in which a process ends while it starts: source, what is told, exit code, what it writes last."""
    return ENDINGS[request.param]


@pytest.fixture
def how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what goes wrong; if there is none, nothing does."""
    file = tmp_path / "how"
    monkeypatch.setenv("FAILING_PRELOAD", str(file))
    return file


def check(
    executor: IsolationExecutor, go: Any, ending: tuple[str, str, int, str], process: str, how: Path
) -> None:
    """Check that two calls are told why there is no process, and that the third one works."""
    source, told, exitcode, last = ending
    how.write_text(source)
    run = functools.partial(executor.run, isolation=PROCESS)
    for _ in range(2):
        with pytest.raises(WorkerStartError) as caught:
            go(run, work.identity, 1)
        error = caught.value
        assert error.what.startswith(process)
        assert error.exitcode == exitcode
        assert error.output.endswith(last or "opening the licence file")
        assert told in str(error)
        assert str(error).endswith(error.output)
    how.unlink()
    assert go(run, work.identity, 1) == 1


def test_a_template_that_ends(go: Any, how: Path, ending: tuple[str, str, int, str], capfd: Any) -> None:
    """The error has its exit code and its last lines, which are on stderr as well."""
    with IsolationExecutor(name="preload", preload=["failing_preload"], max_processes=1) as executor:
        check(executor, go, ending, "the template process", how)
    assert capfd.readouterr().err.count("opening the licence file") == 2


def test_a_worker_that_ends(go: Any, how: Path, ending: tuple[str, str, int, str], capfd: Any) -> None:
    """The same of a worker, while its initializer is called."""
    with IsolationExecutor(name="initializer", initializer=work.initialise_as_told, max_processes=1) as executor:
        check(executor, go, ending, "worker process", how)
    assert capfd.readouterr().err.count("opening the licence file") == 2


def test_what_is_written_later_is_written_directly(go: Any, how: Path, capfd: Any) -> None:
    """The first lines come in time and whole; a worker that is ready has its parent's stderr, and no pipe."""
    how.write_text("pass")
    with IsolationExecutor(name="later", initializer=work.initialise_as_told, max_processes=1) as executor:
        run = functools.partial(executor.run, isolation=PROCESS)
        kept = go(run, work.open_descriptors)
        go(run, work.write_to_stderr, "said by the worker")
    assert [each for each in kept if each.startswith("pipe:")] == []
    assert capfd.readouterr().err == "opening the licence file\nsaid by the worker\n"


def test_no_interpreter(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has no interpreter, such as one that Python is embedded in, is told what is missing."""
    with IsolationExecutor(name="interpreter", max_processes=1) as executor:
        run = functools.partial(executor.run, isolation=PROCESS)
        before = len(os.listdir("/proc/self/fd"))
        for there, told in (("/no/such/python", "FileNotFoundError: .*'/no/such/python'"), ("", "sys.executable")):
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", there)
                with pytest.raises(WorkerStartError, match=f"could not be started: {told}"):
                    go(run, work.identity, 1)
        assert len(os.listdir("/proc/self/fd")) <= before + 4  # the executor's own loop has begun
        assert go(run, work.identity, 1) == 1


def test_a_main_program_that_cannot_be_imported(tmp_path: Path) -> None:
    """Each call is told what importing it has raised, the second as the first; the worker lives on."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, homeloop
            from homeloop import Isolation

            if __name__ != "__main__":
                exec(sys.argv[1])

            async def ask(): return 1

            if __name__ == "__main__":
                for _ in range(2):
                    try:
                        homeloop.run_isolated_sync(ask, isolation=Isolation.PROCESS)
                    except TypeError as error:
                        print(error)
            """
        )
    )
    for source, told in (
        ("import no_such_module", "ModuleNotFoundError: No module"),
        ("sys.exit(3)", "SystemExit: 3"),
    ):
        ended = subprocess.run(
            [sys.executable, str(script), source], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        first, second = ended.stdout.splitlines()
        assert first == second, ended.stderr
        assert first.startswith(f"the function __main__.ask() cannot cross to another process: {told}")


# -- between two calls -----------------------------------------------------------------------------------


def template_of(worker: int) -> psutil.Process:
    """Return the process that a worker was forked from."""
    return psutil.Process(worker).parent() or pytest.fail("it has no parent")


def test_a_killed_template_is_replaced() -> None:
    """Its workers go with it; who calls next gets another one, at the latest when its end is known."""
    with IsolationExecutor(name="template", max_processes=1) as executor:

        async def main() -> tuple[int, int]:
            pid, _ = await executor.run(work.where, isolation=PROCESS)
            template = template_of(pid)
            template.kill()
            wait_gone(pid)
            try:
                assert await executor.run(work.identity, 1, isolation=PROCESS) == 1
            except WorkerDiedError:  # it was lent before anybody had noticed
                assert await executor.run(work.identity, 1, isolation=PROCESS) == 1
            return pid, template.pid

        wait_gone(*asyncio.run(main()))


async def is_asked(executor: IsolationExecutor) -> None:
    """Wait until the template has been asked for another worker."""
    await until(lambda: (forge := executor._processes._forge) is not None and forge._asked)


def test_a_template_that_is_killed_while_it_is_asked(tmp_path: Path) -> None:
    """The call that needed another worker is told what became of the template; the next one works."""
    with IsolationExecutor(name="asked", max_processes=2) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=PROCESS)
            running = asyncio.ensure_future(run(work.signal_then_wait, str(tmp_path / "ready")))
            template = template_of(await appears(tmp_path / "ready"))
            template.suspend()
            asking = asyncio.ensure_future(run(work.where))
            await is_asked(executor)
            template.kill()
            with pytest.raises(WorkerStartError, match="the template process.*killed by signal 9") as caught:
                await asking
            assert caught.value.exitcode == -signal.SIGKILL
            with pytest.raises(WorkerDiedError):
                await running
            assert await run(work.identity, 1) == 1

        asyncio.run(main())


def test_a_fork_that_comes_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gave it up is told; the late worker is ended, and the next call's worker is its own."""
    monkeypatch.setattr(_forge, "_FORK", 0.2)
    with IsolationExecutor(name="late fork", max_processes=2) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=PROCESS)
            running = asyncio.ensure_future(run(work.signal_then_wait, str(tmp_path / "ready")))
            first = await appears(tmp_path / "ready")
            template = template_of(first)
            template.suspend()
            with pytest.raises(WorkerStartError, match=r"did not answer for 0\.2 s"):
                await run(work.where)
            monkeypatch.setattr(_forge, "_FORK", DEADLINE)
            template.resume()
            second, _ = await run(work.where)
            wait_gone(*({child.pid for child in template.children()} - {first, second}))
            died = executor.statistics().tiers[PROCESS].died
            os.kill(second, signal.SIGKILL)  # its end is its own, not that of the late one
            await until(lambda: executor.statistics().tiers[PROCESS].died != died)
            third, _ = await run(work.where)
            assert third not in (first, second)
            assert not running.done()
            running.cancel()
            await asyncio.wait((running,))

        asyncio.run(main())


def test_a_worker_that_is_ready_too_late(
    how: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Whoever gave it up is told what it wrote; it is ended, and the next call has another one."""
    monkeypatch.setattr(_crew, "_READY", 0.2)
    started = tmp_path / "started"
    how.write_text(
        f"import pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    with IsolationExecutor(name="late", initializer=work.initialise_as_told, max_processes=1) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=PROCESS)
            with pytest.raises(WorkerStartError, match="was not ready after 0.2 s") as caught:
                await run(work.where)
            monkeypatch.setattr(_crew, "_READY", DEADLINE)
            assert caught.value.output in ("", "opening the licence file")
            if started.exists():
                wait_gone(int(started.read_text()))
            how.unlink()
            assert await run(work.identity, 1) == 1

        with caplog.at_level(logging.ERROR):
            asyncio.run(main())
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_errors_that_scopes_see(go: Any, how: Path) -> None:
    """A scope whose worker did not start gets one with its next run; AUTO does not take it for a refusal."""
    how.write_text("os._exit(9)")
    with IsolationExecutor(name="scope", initializer=work.initialise_as_told, max_processes=1) as executor:

        async def main() -> None:
            executor.pin(work.identity, PROCESS)
            async with executor.isolated("s", isolation=Isolation.AUTO) as scope:
                with pytest.raises(IsolationError) as caught:
                    await scope.run(work.identity, 1)
                assert not isinstance(caught.value, NotTransferableError)
                how.unlink()
                assert await scope.run(work.identity, 1) == 1

        go(main)
