"""The command line: what a stranger reads, and what a program reads."""

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from homeloop.cli import main
from homeloop.cli._check._catalogue import RULES
from homeloop.diagnosis import CODES, diagnose

BOUND = 60.0


def run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "homeloop", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """Every code and every rule is listed; a code is explained by itself or by its name."""
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("LOOP") for line in listed) == len(CODES)
    assert sum(line.startswith("HL") for line in listed) == len(RULES)
    for code in CODES:
        assert main(["explain", code.code.lower()]) == 0
        by_code = capsys.readouterr().out
        assert main(["explain", code.kind.value]) == 0
        assert capsys.readouterr().out == by_code
        assert all(word in by_code for word in (code.title, "Goes wrong", "Works", "What to change"))


def test_explain_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown code is an error that lists those that begin alike."""
    assert main(["explain", "LOOP199"]) == 2
    assert "LOOP101" in capsys.readouterr().err
    assert main(["explain", "HL999"]) == 2
    assert "there is no rule 'HL999'; homeloop check --list" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", "--help"], ["explain", "--help"], ["doctor", "--help"]]
)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help says what a command is for."""
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    assert len(capsys.readouterr().out) > 200


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the package."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"homeloop {version('homeloop')}\n"


def test_doctor_finds_nothing(tmp_path: Path) -> None:
    """A sound program's output and exit code are its own."""
    (tmp_path / "app.py").write_text("import sys\nprint('hello')\nsys.exit(3)\n")
    ended = run("doctor", "--", "python", "app.py", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (3, "hello\n")
    assert "exit code 3; no loop faults were found" in ended.stderr


def test_doctor_tells(tmp_path: Path) -> None:
    """A fault is shown as it happens and counted at the end, and decides the exit code; --json is for programs."""
    (tmp_path / "app.py").write_text(
        "import asyncio, threading\n"
        "async def main():\n"
        "    await asyncio.to_thread(asyncio.get_event_loop_policy)\n"
        "    def job():\n"
        "        asyncio.get_event_loop()\n"
        "    thread = threading.Thread(target=job)\n"
        "    thread.start()\n"
        "    await asyncio.to_thread(thread.join)\n"
        "asyncio.run(main())\n"
        "print('done')\n"
    )
    ended = run("doctor", "--", "python", "app.py", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "done\n")
    assert "error[LOOP202]" in ended.stderr
    assert "LOOP202  1 x" in ended.stderr
    ended = run("doctor", "--json", "--exit-code", "command", "--", "python", "app.py", folder=tmp_path)
    assert ended.returncode == 0
    finding = json.loads(ended.stdout.splitlines()[-1])
    assert finding["finding"]["code"] == "LOOP202"
    assert finding["finding"]["used_at"]["line"] == 5
    assert "error[" not in ended.stderr


def test_doctor_leaves_the_programs_log_alone(tmp_path: Path) -> None:
    """What tracing sees is shown by the doctor, and not logged by the program as well."""
    (tmp_path / "app.py").write_text(
        "import asyncio\n"
        "async def main():\n"
        "    queue = asyncio.Queue()\n"
        "    getting = asyncio.create_task(queue.get())\n"
        "    await asyncio.sleep(0)\n"
        "    await asyncio.to_thread(queue.put_nowait, 1)\n"
        "    await getting\n"
        "asyncio.run(main())\n"
    )
    told = run("doctor", "--", "python", "app.py", folder=tmp_path).stderr
    assert told.count("error[LOOP105]") == 1
    assert "LoopFault" not in told
    assert "homeloop explain unsafe-cross-thread" not in told


def test_doctor_that_saw_nothing(tmp_path: Path) -> None:
    """A program that could not be watched is not said to be sound."""
    assert "it was not watched" in run("doctor", "--", "true", folder=tmp_path).stderr


def test_doctor_without_a_program(tmp_path: Path) -> None:
    """No command, or one that is not there, is an error that says so."""
    assert "name a command" in run("doctor", folder=tmp_path).stderr
    ended = run("doctor", "--", "no-such-program", folder=tmp_path)
    assert ended.returncode == 2
    assert "'no-such-program' cannot be run" in ended.stderr
    (tmp_path / "my app.py").write_text("")
    ended = run("doctor", "--", "my app.py", "-x", folder=tmp_path)
    assert ended.returncode == 2
    assert "try: homeloop doctor -- python 'my app.py' -x" in ended.stderr


def test_render_and_note() -> None:
    """A render is plain text of one screen, or coloured; as a note it is added once and shown in the traceback."""

    def ask() -> None:
        import asyncio

        asyncio.get_running_loop()

    with pytest.raises(RuntimeError) as caught:
        ask()
    diagnosis = diagnose(caught.value, note=True)
    assert diagnose(caught.value, note=True) == diagnosis
    assert diagnosis is not None
    plain = diagnosis.render()
    assert caught.value.__notes__ == [f"\n{plain}"]
    assert "^^^^^^^^^^^^^^^^^^^^^^^^^^ here" in plain
    assert "\033[" not in plain
    assert "\033[" in diagnosis.render(color=True)
    assert len(plain.splitlines()) < 30
    assert max(map(len, plain.splitlines())) <= 120


def test_doctor_tells_of_lines_with_any_character(tmp_path: Path) -> None:
    """One finding is one line, whatever separators the program's source has."""
    (tmp_path / "program.py").write_text(
        "import asyncio\nasync def main(): asyncio.run(asyncio.sleep(0))  # \u2028 x\nasyncio.run(main())\n",
        "utf-8",
    )
    ended = run("doctor", "--json", "--", sys.executable, "program.py", folder=tmp_path)
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)["finding"]["code"] == "LOOP201", ended.stderr


def test_doctor_leaves_the_traceback_module_its_parameters(tmp_path: Path) -> None:
    """Programs may name them."""
    (tmp_path / "program.py").write_text(
        "import traceback\nerror = ValueError('x')\n"
        "traceback.TracebackException(exc_type=ValueError, exc_value=error, exc_traceback=None)\n"
    )
    assert run("doctor", "--", sys.executable, "program.py", folder=tmp_path).returncode == 0


def test_doctor_names_a_signal_that_has_no_name(tmp_path: Path) -> None:
    """Real-time signals have a number only."""
    ended = run("doctor", "--", "sh", "-c", "kill -40 $$", folder=tmp_path)
    assert "signal 40" in ended.stderr + ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_doctor_hands_on_what_it_alone_is_sent(number: signal.Signals, tmp_path: Path) -> None:
    """The program ends as it would without the doctor, and its exit code is the doctor's."""
    (tmp_path / "app.py").write_text(
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda number, frame: sys.exit(40 + number))\n"
        "print('ready', flush=True)\nwhile True:\n    signal.pause()\n"
    )
    command = [sys.executable, "-m", "homeloop", "doctor", "--", "python", "app.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as doctor:
        try:
            assert doctor.stdout is not None
            assert doctor.stdout.readline() == b"ready\n"
            doctor.send_signal(number)
            out, told = doctor.communicate(timeout=BOUND)  # it ends with the program, which holds the pipe
        finally:
            if doctor.poll() is None:
                os.killpg(doctor.pid, signal.SIGKILL)
    assert (doctor.returncode, out) == (40 + number, b"")
    assert f"exit code {40 + number}; no loop faults" in told.decode()


LATE = """
import asyncio, subprocess, sys
open("ready", "w").close()
open("go").read()
async def main():
    asyncio.run(asyncio.sleep(0))
try:
    asyncio.run(main())
except RuntimeError as error:
    import traceback
    traceback.print_exc()
subprocess.run([sys.executable, "-c", "print('a child')"], stdout=sys.stdout, check=True)
"""


def test_doctor_may_end_before_a_child(tmp_path: Path) -> None:
    """What a program leaves running goes on as it would: no error of ours is in it, nor in what it starts."""
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "app.py").write_text(
        "import subprocess, sys\n"
        "with open('told', 'wb') as told:\n"
        "    subprocess.Popen([sys.executable, 'late.py'], stdout=told, stderr=told)._child_created = False\n"
        "open('ready').read()\n"
    )
    for name in ("ready", "go", "told"):
        os.mkfifo(tmp_path / name)
    reader = os.open(tmp_path / "told", os.O_RDONLY | os.O_NONBLOCK)
    ended = run("doctor", "--", "python", "app.py", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "go").write_text("")
    os.set_blocking(reader, True)
    with os.fdopen(reader, encoding="utf-8") as told:
        text = told.read()
    assert "error[LOOP201]" in text
    assert "FileNotFoundError" not in text
    assert "\na child\n" in text
