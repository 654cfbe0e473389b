"""``migrate``, ``doctor`` and ``--show-settings``: what they print, and how they exit."""

import json
import os
import socket
from pathlib import Path

import pytest

from workflow_service.cli.settings_view import read_settings
from workflow_service.local.errors import LocalError

from .conftest import Run

KEY = "0123456789abcdef01234567"
DIRTY = {"WORKFLOW_API_KEYS": json.dumps({"alice": KEY}), "BROKER_URL": "redis://:pa55word@127.0.0.1:1/0"}


def test_show_settings_lists_all_and_no_secret(command_line: Run, tmp_path: Path) -> None:
    """Each variable with its value, where that comes from and its default; those of a file, too."""
    file = tmp_path / "service.env"
    file.write_text("DATABASE_URL=postgresql://u:pa55word@h/d\nWORKFLOW_RUN_LEASE=7\nWORKFLOW_API_PORT=1\n")
    shown = command_line("--env-file", str(file), "--show-settings", WORKFLOW_API_PORT="8000", **DIRTY)
    assert shown.wait() == 0, shown.text
    lines = shown.text.splitlines()
    assert "DATABASE_URL = postgresql://u:***@h/d  (file; default: required)" in lines
    assert "WORKFLOW_RUN_LEASE = 7.0  (file; default: 10.0)" in lines
    assert "WORKFLOW_API_PORT = 8000  (environment; default: 8321)" in lines, "the environment goes first"
    assert 'WORKFLOW_API_KEYS = {"alice": "***"}  (environment; default: {})' in lines
    assert "WORKFLOW_WORKER_POOL = threads  (default)" in lines
    assert KEY not in shown.text
    assert "pa55word" not in shown.text
    assert "" not in [line.strip() for line in lines], "each has a meaning"


def test_settings_that_make_no_sense_are_named(command_line: Run) -> None:
    """A line for each fault, by its variable, without its value."""
    shown = command_line("--show-settings", WORKFLOW_RUN_LEASE="pa55word", BROKER_URL="redis://h")
    assert shown.wait() == 1
    assert "DATABASE_URL is missing (PostgreSQL, as libpq" in shown.text
    assert "WORKFLOW_RUN_LEASE must be a number (A worker that" in shown.text
    assert "pa55word" not in shown.text
    with_part = {
        "DATABASE_URL": "postgresql://u@h/d",
        "BROKER_URL": "redis://h",
        "WORKFLOW_JWT_ISSUER": "https://i",
    }
    shown = command_line("--show-settings", WORKFLOW_DATABASE_POOLER="transaction", **with_part)
    assert shown.wait() == 1
    assert "with WORKFLOW_DATABASE_POOLER, set WORKFLOW_DATABASE_DIRECT_URL too" in shown.text
    shown = command_line("doctor", **with_part)
    assert shown.wait() == 1
    assert "for tokens, set WORKFLOW_JWT_ALGORITHM" in shown.text
    assert "Traceback" not in shown.text


SERVERS = {"DATABASE_URL": "postgresql://u:pa55word@h/d", "BROKER_URL": "redis://h"}


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WORKFLOW_API_KEYS", "pa55word", "WORKFLOW_API_KEYS is no JSON: "),
        ("WORKFLOW_API_KEYS", '{"alice": 5}', "WORKFLOW_API_KEYS.alice must be a text"),
        ("WORKFLOW_WEBHOOK_SECRETS", "pa55word", "WORKFLOW_WEBHOOK_SECRETS is no JSON: "),
        ("WORKFLOW_SERVICES__WEATHERAPI__TIMEOUT", "0", "WORKFLOW_SERVICES__WEATHERAPI__TIMEOUT must be greater"),
        ("WORKFLOW_SERVICES__WEATHERAPI__KYE", "pa55word", "WORKFLOW_SERVICES__WEATHERAPI__KYE is not known"),
        ("WORKFLOW_WORKER_SILENCE", "1", "WORKFLOW_WORKER_SILENCE must be 0 or at least 5: "),
        ("WORKFLOW_RUN_LEASE", "inf", "WORKFLOW_RUN_LEASE must be a finite number"),
        ("WORKFLOW_MODEL_TEMPERATURE", "pa55word", "WORKFLOW_MODEL_TEMPERATURE must be a number"),
        ("WORKFLOW_JWT_ISSUER", "x", "for tokens, set WORKFLOW_JWT_ALGORITHM"),
        ("DATABASE_URL", "mysql://u:pa55word@h/d", "DATABASE_URL must begin with postgresql://"),
        ("DATABASE_URL", "", "DATABASE_URL is missing"),
        ("BROKER_URL", "localhost:6379", "BROKER_URL must begin with redis://"),
    ],
)
def test_every_setting_that_makes_no_sense_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    """Its variable, what it must be and what it is for; never a traceback, never a value."""
    for name in [name for name in os.environ if name.startswith("WORKFLOW_")]:
        monkeypatch.delenv(name)
    for name, given in {**SERVERS, variable: value}.items():
        monkeypatch.setenv(name, given)
    with pytest.raises(LocalError) as refused:
        read_settings()
    assert str(refused.value).splitlines()[1].strip().startswith(says)
    assert "pa55word" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_setting_without_a_value_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file in which somebody keeps the names: no folder «.», no model «»."""
    for name, given in {**SERVERS, "WORKFLOW_DEFINITIONS": "", "WORKFLOW_MODEL": ""}.items():
        monkeypatch.setenv(name, given)
    settings = read_settings()
    assert (settings.definitions, settings.model) == (None, None)


def test_up_refuses_settings_that_make_no_sense_before_anything_starts(command_line: Run, tmp_path: Path) -> None:
    """In its own words, not by a process that ends with a traceback."""
    up = command_line("up", "--home", str(tmp_path / "home"), "--port", "0", WORKFLOW_RUN_LEASE="x")
    assert up.wait() == 1
    assert up.text.startswith("error: the settings cannot be used:\n  WORKFLOW_RUN_LEASE must be a number")
    assert not (tmp_path / "home").exists()


@pytest.mark.needs("postgres")
def test_migrate_checks_prints_and_does(command_line: Run, empty_database: str) -> None:
    """--check and --sql change nothing; the exit code of --check tells."""
    check = command_line("migrate", "--check", DATABASE_URL=empty_database)
    assert check.wait() == 1
    assert "The schema is not there" in check.text
    sql = command_line("migrate", "--sql", DATABASE_URL=empty_database)
    assert sql.wait() == 0
    assert "CREATE TABLE workflow.runs" in sql.text
    done = command_line("migrate", DATABASE_URL=empty_database)
    assert done.wait() == 0
    assert "Applied 0001" in done.text
    again = command_line("migrate", "--check", DATABASE_URL=empty_database)
    assert again.wait() == 0
    assert "up to date" in again.text


def test_migrate_says_what_it_lacks(command_line: Run) -> None:
    """No address, and nobody behind it."""
    without = command_line("migrate")
    assert without.wait() == 1
    assert "DATABASE_URL is not set" in without.text
    away = command_line("migrate", DATABASE_URL="postgresql://u:pa55word@127.0.0.1:1/d")
    assert away.wait() == 1
    assert "check DATABASE_URL" in away.text
    assert "pa55word" not in away.text


@pytest.mark.needs("postgres", "redis")
def test_doctor_says_what_is_missing(command_line: Run, empty_database: str, redis_url: str) -> None:
    """Each check is a line; what fails says what to do, and the exit code is 1 then."""
    keys = {
        "WORKFLOW_API_KEYS": json.dumps({"alice": KEY, "bob": "short", "eve": "change-me-openssl-rand-hex-24"})
    }
    sick = command_line("doctor", "--json", DATABASE_URL=empty_database, BROKER_URL=redis_url, **keys)
    assert sick.wait() == 1
    checks = {check["subject"]: check for check in json.loads(sick.text)}
    assert checks["schema"]["state"] == 2
    assert checks["schema"]["advice"] == "run workflow-service migrate"
    assert checks["API keys"]["found"] == "of the 3 in WORKFLOW_API_KEYS 2 can be guessed"
    assert "weatherapi" in checks["services"]["found"]
    assert checks["workers"]["found"] == "none answers on this broker"
    assert {checks[subject]["state"] for subject in ("versions", "database", "clocks", "broker")} == {0}
    assert command_line("migrate", DATABASE_URL=empty_database).wait() == 0
    well = command_line("doctor", DATABASE_URL=empty_database, BROKER_URL=redis_url, **keys)
    assert well.wait() == 0, well.text
    assert "ok    schema" in well.text


def test_doctor_without_servers(command_line: Run) -> None:
    """Servers that are away are told each, without their passwords."""
    found = command_line("doctor", DATABASE_URL="postgresql://u:pa55word@127.0.0.1:1/d", **DIRTY)
    assert found.wait() == 1
    assert "FAIL  database" in found.text
    assert "FAIL  broker" in found.text
    assert "pa55word" not in found.text
    unset = command_line("doctor")
    assert unset.wait() == 1
    assert "FAIL  settings" in unset.text


@pytest.mark.needs("postgres")
def test_doctor_names_broken_definitions_and_models(
    command_line: Run, empty_database: str, tmp_path: Path
) -> None:
    """A definition by its file and line, a model by what it lacks, without its key; what is well by name."""
    definitions = tmp_path / "definitions"
    definitions.mkdir()
    (definitions / "broken.yaml").write_text("name: broken\nsteps: 7\n")
    here = {
        "DATABASE_URL": empty_database,
        "BROKER_URL": "redis://127.0.0.1:1/0",
        "WORKFLOW_API_KEYS": json.dumps({"alice": KEY}),
    }
    model = {"WORKFLOW_MODEL": "nobody:m", "WORKFLOW_MODEL_KEY": KEY}
    sick = command_line("doctor", "--json", WORKFLOW_DEFINITIONS=str(definitions), **here, **model)
    assert sick.wait() == 1, sick.text
    assert KEY not in sick.text
    checks = {check["subject"]: check for check in json.loads(sick.text)}
    assert checks["definitions"]["state"] == 1
    assert f"{definitions / 'broken.yaml'}:2:" in checks["definitions"]["advice"]
    assert checks["language model"]["state"] == 2
    assert "'nobody:m' cannot be set up" in checks["language model"]["found"]
    (definitions / "broken.yaml").unlink()
    model["WORKFLOW_MODEL"] = "openai:gpt"
    well = command_line("doctor", "--json", WORKFLOW_DEFINITIONS=str(definitions), **here, **model)
    well.wait()
    checks = {check["subject"]: check for check in json.loads(well.text)}
    assert checks["definitions"]["found"] == f"0 of {definitions} can be used"
    assert checks["language model"]["found"] == "openai:gpt, key set; the provider was not asked"


@pytest.mark.needs("postgres")
def test_an_api_whose_port_is_taken_says_how_to_choose_another(command_line: Run, empty_database: str) -> None:
    """Before uvicorn: a line with the place, the options and the settings."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        api = command_line("api", "--port", port, DATABASE_URL=empty_database, BROKER_URL="redis://127.0.0.1:1/0")
        assert api.wait() == 1
    assert api.text.startswith(f"error: the API cannot listen on 127.0.0.1, port {port}: ")
    assert "--port, WORKFLOW_API_HOST" in api.text


@pytest.mark.needs("postgres")
def test_keys_of_an_issuer_that_are_not_there_are_told(command_line: Run, empty_database: str) -> None:
    """By `doctor`, and by an API that cannot start for it: the setting, in a line, without a traceback."""
    settings = {
        "DATABASE_URL": empty_database,
        "BROKER_URL": "redis://127.0.0.1:1/0",
        "WORKFLOW_JWT_ALGORITHM": "RS256",
        "WORKFLOW_JWT_ISSUER": "i",
        "WORKFLOW_JWT_AUDIENCE": "a",
        "WORKFLOW_JWT_JWKS_FILE": "/nowhere.json",
        "WORKFLOW_API_PORT": "0",
    }
    found = command_line("doctor", **settings)
    assert found.wait() == 1
    assert "FAIL  tokens" in found.text
    assert "WORKFLOW_JWT_JWKS_FILE=/nowhere.json holds no key for RS256" in found.text
    api = command_line("api", **settings)
    assert api.wait() != 0
    assert "the API cannot start: WORKFLOW_JWT_JWKS_FILE=/nowhere.json holds no key for RS256" in api.text
    assert "Traceback" not in api.text
