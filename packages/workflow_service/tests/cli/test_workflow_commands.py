"""The commands for those who write workflow definitions."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from workflow_service.cli.commands import main
from workflow_service.cli.view import View
from workflow_service.cli.workflow_commands import warn_of_definitions
from workflow_service.local.service import Connection

GOOD = """\
name: good
description: Good.
input: {type: object, properties: {city: {type: string}}, required: [city]}
steps:
  weather: {type: external_service, service: weatherapi, operation: current, params: {q: "${{ input.city }}"}}
  words: {type: transform, value: "It is ${{ steps.weather.data.temp }} degrees in ${{ input.city }}"}
  more: {type: transform, when: "${{ steps.words.data }}", value: 1}
output: {said: "${{ steps.words.data }}"}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder with one definition."""
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["workflow", *map(str, arguments)])


def test_a_right_definition_is_called_right(good: Path) -> None:
    """In a file, and in a folder."""
    for path in (good / "good.yaml", good):
        result = run("validate", path)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == f"{good / 'good.yaml'}: good is right, with 3 steps\n"


def test_faults_are_told_a_line_each_and_the_exit_code_is_1(good: Path) -> None:
    """As compilers do, so that editors and CI can go there."""
    wrong = good / "wrong.yaml"
    wrong.write_text(GOOD.replace("input.city", "input.cty", 1).replace("good", "wrong"))
    result = run("validate", good)
    assert result.exit_code == 1
    assert "good is right" in result.stdout
    assert result.stderr == (f"{wrong}:5:95: input has no 'cty'; did you mean 'city'?, in 'input.cty'\n")


def test_what_services_do_not_have_is_told(good: Path) -> None:
    """By the services that are installed here, with or without keys."""
    wrong = good / "wrong.yaml"
    wrong.write_text(GOOD.replace("operation: current", "operation: curent"))
    result = run("validate", wrong)
    assert result.exit_code == 1
    assert result.stderr == (f"{wrong}:5:69: weatherapi has no operation 'curent'; did you mean 'current'?\n")


def test_a_folder_without_definitions_is_no_success(tmp_path: Path) -> None:
    """A wrong folder would otherwise pass for a right one."""
    result = run("validate", tmp_path)
    assert result.exit_code == 1
    assert "no definition is in here: no file ends with .yaml, .yml, .json" in result.stderr


def test_the_schema_is_printed() -> None:
    """As JSON, and it is a schema."""
    result = run("schema")
    assert result.exit_code == 0
    Draft202012Validator.check_schema(json.loads(result.stdout))


def test_a_dry_run_shows_order_and_what_is_given(good: Path) -> None:
    """What is not known stands as it is."""
    result = run("dry-run", good / "good.yaml", "--input", '{"city": "Berlin"}')
    assert result.exit_code == 0, result.stderr
    assert (
        result.stdout
        == """\
3 steps; those of one number can work side by side

1. weather: external_service weatherapi current
   given: {"q": "Berlin"}

2. words: transform, after weather
   given: "It is ${{ steps.weather.data.temp }} degrees in Berlin"

3. more: transform, after words
   if its condition holds, which is not known yet
   given: 1
   gives: 1

output: {"said": "${{ steps.words.data }}"}
"""
    )


def test_a_dry_run_goes_on_with_what_it_is_told(good: Path, tmp_path: Path) -> None:
    """Data of steps, input from a file, and JSON for programs."""
    (tmp_path / "input.json").write_text('{"city": "Rome"}')
    result = run(
        *("dry-run", good / "good.yaml", "--input", f"@{tmp_path}/input.json"),
        *("--given", 'weather={"temp": 21}', "--json"),
    )
    assert result.exit_code == 0, result.stderr
    planned = json.loads(result.stdout)
    assert planned["output"] == {"said": "It is 21 degrees in Rome"}
    assert [step["wave"] for step in planned["steps"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 1, "error: input.city is missing"),
        (["--input", "[]"], 1, "error: input must be an object (keys and values), is a list"),
        (["--input", "{"], 2, "this is no JSON"),
        (["--input", "@gone.json"], 2, "gone.json cannot be read"),
        (["--input", '{"city": "x"}', "--given", "weather"], 2, "must be STEP=JSON"),
        (["--input", '{"city": "x"}', "--given", "wether=1"], 1, "there is no step 'wether'; did you mean"),
    ],
)
def test_a_dry_run_that_cannot_be_says_why(good: Path, arguments: list[str], code: int, told: str) -> None:
    """In a line; the exit code tells input from usage."""
    result = run("dry-run", good / "good.yaml", *arguments)
    assert result.exit_code == code
    assert told in result.stderr


def test_a_dry_run_of_a_wrong_definition_tells_its_faults(tmp_path: Path) -> None:
    """As validate does."""
    (tmp_path / "x.yaml").write_text("name: x\n")
    result = run("dry-run", tmp_path / "x.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{tmp_path}/x.yaml:1:1: the definition lacks")


def test_up_names_the_definitions_that_it_leaves_out(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the terminal where it starts: the log is somewhere else."""
    (good / "wrong.yaml").write_text("name: x\n")
    warn_of_definitions(good, View())
    said = capsys.readouterr().err
    assert said == f"left out: {good}/wrong.yaml:1:1: the definition lacks 'description', 'steps', 'output'\n"


def test_the_folder_of_definitions_may_be_relative(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's processes run in another folder."""
    monkeypatch.chdir(good.parent)
    monkeypatch.setenv("WORKFLOW_DEFINITIONS", good.name)
    connection = Connection(1, 0.0, "http://127.0.0.1:1/", 1, "postgresql://h/d", "memory://", {"a": "key"})
    assert connection.environment(good)["WORKFLOW_DEFINITIONS"] == str(good)
