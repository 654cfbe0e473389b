"""`homeloop check`: formats, configuration, exit codes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from homeloop.cli import main

BROKEN = "import nest_asyncio\n\nnest_asyncio.apply()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Sound files end with 0."""
    Path("a.py").write_text("print('hello')\n")
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "nothing found, 1 file checked\n"


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A finding shows place, source, reason and help; the exit code is 1."""
    Path("a.py").write_text(BROKEN)
    assert main(["check", "a.py"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("a.py:3:1: HL114 ")
    assert "3 | nest_asyncio.apply()\n  | ^^^^^^^^^^^^^^^^^^^^\n" in out
    assert "= help: " in out
    assert out.endswith("1 finding, 1 file checked\n")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get one document."""
    Path("a.py").write_text(BROKEN)
    assert main(["check", "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["checked"], told["unread"]) == (1, [])
    (finding,) = told["findings"]
    assert (finding["code"], finding["path"], finding["line"], finding["column"]) == ("HL114", "a.py", 3, 1)


def test_github(capsys: pytest.CaptureFixture[str]) -> None:
    """GitHub gets a command per finding, its separators escaped."""
    Path("a,b.py").write_text(BROKEN)
    assert main(["check", "--format", "github"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("::error file=a%2Cb.py,line=3,col=1,endColumn=21,title=HL114 ")


def test_sarif(capsys: pytest.CaptureFixture[str]) -> None:
    """SARIF viewers get rules, places and what could not be read."""
    Path("a b.py").write_text(BROKEN)
    Path("c.py").write_text("def :\n")
    assert main(["check", "--format", "sarif"]) == 2
    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    (result,) = run["results"]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "HL114"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b.py"
    assert place["region"] == {"startLine": 3, "startColumn": 1, "endColumn": 21}
    (notice,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notice["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "c.py"


def test_unreadable(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not Python, or a path that is not there, is not passed over in silence."""
    Path("a.py").write_text("def :\n")
    Path("b.py").write_bytes(b"\xff\xfe")
    assert main(["check"]) == 2
    told = capsys.readouterr().err
    assert "not checked: a.py: line 1" in told
    assert "not checked: b.py: " in told
    Path("a.py").unlink()
    Path("b.py").unlink()
    Path("link.py").symlink_to("nowhere.py")
    assert main(["check"]) == 2
    assert "not checked: link.py: no regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "why"),
    [("absent", "No such file or directory"), ("a" * 5000, "File name too long"), ("a\0b", "embedded null ")],
)
def test_paths_that_are_none(path: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that cannot be looked at is told of with the system's reason, in a line."""
    assert main(["check", path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert len(line) < 300


def test_no_python(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is nothing to check, nothing is said to be in order."""
    Path("readme.txt").write_text("hello\n")
    assert main(["check"]) == 2
    assert "there are no Python files to check" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="folders' permissions are POSIX")
def test_folders_that_may_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is closed to us is not passed over in silence either."""
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        closed = Path(open_to_all, "closed")
        closed.mkdir(mode=0)
        Path(open_to_all, "a.py").write_text("x = 1\n")
        if was == 0:
            os.seteuid(65534)  # root may read everything
        try:
            assert main(["check", open_to_all]) == 2
            assert f"not checked: {closed}: Permission denied" in capsys.readouterr().err
        finally:
            if was == 0:
                os.seteuid(was)


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends it without a traceback."""
    (tmp_path / "a.py").write_text("x = 1\n")
    program = (
        "import os, signal, sys\n"
        "from homeloop.cli import main\n"
        "import homeloop.cli._check._examine as examine\n"
        "examine.read_module = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(main(['check', 'a.py']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "")


def test_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """pyproject.toml chooses rules and files; the command line goes before it."""
    Path("tests").mkdir()
    Path("generated").mkdir()
    for name in ("a.py", "tests/b.py", "generated/c.py"):
        Path(name).write_text(BROKEN)
    Path("pyproject.toml").write_text(
        "[tool.homeloop.check]\nexclude = ['generated']\nper-file-ignores = {'tests/*' = ['nested-loops']}\n"
    )
    assert main(["check", "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["path"] for each in told["findings"]] == ["a.py"]
    assert told["checked"] == 2
    assert main(["check", "--ignore", "HL114"]) == 0
    Path("pyproject.toml").write_text("[tool.homeloop.check]\nignore = ['HL114']\n")
    assert main(["check"]) == 0
    assert main(["check", "--select", "HL1"]) == 1


@pytest.mark.parametrize(
    "table",
    ["chosen = []", "select = ['HL9']", "select = 'HL101'", "exclude = [1]", "per-file-ignores = []", "= 1"],
)
def test_wrong_configuration(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not understood is an error that names the file."""
    Path("pyproject.toml").write_text(f"[tool.homeloop.check]\n{table}\n")
    assert main(["check"]) == 2
    assert "pyproject.toml" in capsys.readouterr().err
    assert main(["check", "--select", "HL999"]) == 2


def test_list_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """Rules are listed, and explained by code and by name."""
    assert main(["check", "--list"]) == 0
    assert "HL104  run-in-task" in capsys.readouterr().out
    assert main(["explain", "hl104"]) == 0
    by_code = capsys.readouterr().out
    assert main(["explain", "run-in-task"]) == 0
    assert capsys.readouterr().out == by_code
    assert "homeloop.run" in by_code


@pytest.mark.parametrize(
    ("comment", "ended"),
    [
        ("# homeloop: ignore", 0),
        ("# homeloop: ignore[HL114]", 0),
        ("# homeloop: ignore[HL1]", 0),
        ("# homeloop: ignore  # known", 0),
        ("# homeloop: ignore[HL101]", 1),
        ("# homeloop: ignore[no_such_rule]", 1),
        ("# homeloop: ignored by hand", 1),
        ("# homeloop: ignore []", 1),
    ],
)
def test_a_comment_suppresses_what_it_names(comment: str, ended: int) -> None:
    """All rules only if it names none; codes may be cut short, as on the command line."""
    Path("a.py").write_text(f"import nest_asyncio\n\nnest_asyncio.apply()  {comment}\n")
    assert main(["check"]) == ended


@pytest.mark.parametrize("between", ["\f", "x = '\u2028'", "# \x85"])
def test_lines_are_those_of_the_parser(between: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Form feeds and Unicode's separators end none."""
    Path("a.py").write_text(f"import nest_asyncio\n{between}\nnest_asyncio.apply()\n", encoding="utf-8")
    assert main(["check"]) == 1
    assert "3 | nest_asyncio.apply()\n" in capsys.readouterr().out


def test_the_encoding_that_a_file_declares_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """As for Python itself."""
    Path("a.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    assert main(["check"]) == 0
    Path("a.py").write_bytes(b"# -*- coding: nonsense -*-\n")
    assert main(["check"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_what_is_no_file_is_told_of_and_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A named pipe, for instance."""
    os.mkfifo("a.py")
    assert main(["check"]) == 2
    assert "a.py: no regular file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nhomeloop = 3"])
def test_tables_that_are_none_are_none_of_ours(text: str) -> None:
    """Whose they are, they tell of."""
    Path("pyproject.toml").write_text(text)
    Path("a.py").write_text("")
    assert main(["check"]) == 0


def test_a_path_through_the_parent_has_its_own_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that of the folder from which it is named; its patterns apply however the files are named."""
    for name in ("here", "there", "bare"):
        Path(name, "tests").mkdir(parents=True)
        Path(name, "tests", "a.py").write_text(BROKEN)
    Path("here/pyproject.toml").write_text("[tool.homeloop.check]\nignore = ['HL114']\n")
    Path("there/pyproject.toml").write_text("[tool.homeloop.check]\nper-file-ignores = {'tests/*' = ['HL101']}\n")
    monkeypatch.chdir("here")
    assert main(["check", "../there"]) == 1
    assert main(["check", "../bare"]) == 1
    Path("../there/pyproject.toml").write_text("[tool.homeloop.check]\nexclude = ['tests/*']\n")
    assert main(["check", "../there"]) == 0
    assert "0 files checked" in capsys.readouterr().out


def test_a_file_is_checked_once_however_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """By itself, by its folder, through another folder or a link."""
    Path("sub").mkdir()
    Path("a.py").write_text(BROKEN)
    Path("b.py").symlink_to("a.py")
    assert main(["check", "a.py", "sub/../a.py", str(Path("a.py").absolute()), "."]) == 1
    assert capsys.readouterr().out.endswith("1 finding, 1 file checked\n")
