"""Secrets stay where they were put: the service is run with marked ones, made to fail, and searched for them."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import traceback
from contextlib import aclosing
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from click.testing import CliRunner

from workflow_service.cli.commands import main
from workflow_service.contracts import EXECUTE_RUN
from workflow_service.domain.identity import split_key
from workflow_service.gateways.celery_queue import CeleryJobQueue
from workflow_service.settings import Settings

pytestmark = pytest.mark.needs("postgres")

MARK = "MARKED"  # a part of every secret
BOUND = 60.0  # seconds
API = ("uvicorn", "workflow_service.api.app:create_app", "--factory", "--port", "0")
WORKER = ("celery", "--app", "workflow_service.worker.app", "worker", "--pool", "solo", "--loglevel", "DEBUG")
GOOD = {
    "DATABASE_URL": "postgresql://nobody:MARKED-database@127.0.0.1:1/none",
    "BROKER_URL": "redis://:MARKED-broker@127.0.0.1:1/0",
    "WORKFLOW_API_KEYS": '{"alice": "MARKED-key"}',
}


TABLES = """
SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'workflow'::regnamespace
"""
WRONG = ("wrong", f"{MARK}-wrong", f"eyJ.{MARK}.x", f"wsk_000000000000_{MARK:x<43}")
BROKEN = {"a.pdf": b"%PDF-1.7 broken", "a.docx": b"PK\x03\x04 broken", "a.txt": b"\xff\xfe"}
PATHS = ("/api/v1/runs/x", "/api/v1/nothing", "/health/ready", "/openapi.json", "/", "/api/v1/workflows")
OUTAGE = (
    "/api/v1/runs",
    "/api/v1/webhooks/deliveries",
    f"/api/v1/runs/{uuid4()}/events",
)


async def ask_database(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


def everything_in(url):
    """Return all rows of all tables, as a superuser sees them."""
    rows = []
    for (table,) in asyncio.run(ask_database(url, TABLES)):
        found = asyncio.run(ask_database(url, f"SELECT t::text FROM {table} t"))
        rows += [f"{table}: {row[0]}" for row in found]
    return rows


def run_to_end(client, document_id):
    """Analyse a document and return all that is told of it."""
    body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document_id}}
    run_id = client.post("/api/v1/workflows/execute", json=body).json()["run_id"]
    with client.stream("GET", f"/api/v1/runs/{run_id}/events") as stream:
        told = "".join(stream.iter_text())
    return told + client.get(f"/api/v1/runs/{run_id}/result").text


def whole(answer):
    return f"{answer.headers} {answer.text}"


def provoke(running):
    """Make everything fail that can be made to, and return what was answered."""
    told = []
    with running.client("alice") as alice, running.client(None) as anyone:
        for key in (*WRONG, running.secrets["alice"] + "x"):
            for value in (f"Bearer {key}", f"Basic {key}", key):
                told.append(whole(anyone.get("/api/v1/runs", headers={"Authorization": value})))
        for name, content in BROKEN.items():
            uploaded = alice.post("/api/v1/documents", files={"file": (name, content)})
            told.append(whole(uploaded))
            if uploaded.status_code == 201:
                told.append(run_to_end(alice, uploaded.json()["document_id"]))
        told += [whole(alice.get(path)) for path in PATHS]
        told.append(whole(alice.post("/api/v1/workflows/execute", content=b"{")))
    return told


def lock_out(running, superuser, *, is_out):
    """Take the service's database from it, or give it back."""
    role = urlsplit(running.database_url).username
    asyncio.run(ask_database(superuser, f"ALTER ROLE {role} {'NOLOGIN' if is_out else 'LOGIN'}"))
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    asyncio.run(ask_database(superuser, ended))


def test_secrets_are_in_no_log_broker_table_or_answer(running, postgres_url, monkeypatch):
    """Keys, the database's password, the secret of tokens, an external service's key: none of them anywhere."""
    monkeypatch.setenv("DATABASE_URL", running.database_url)
    key = CliRunner().invoke(main, ["keys", "create", "dora", "--label", "x"]).stdout.strip()
    secrets = {*running.secrets.values(), split_key(key)[1], MARK}
    told = provoke(running)
    with running.client(None) as anyone:
        assert anyone.get("/api/v1/runs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    lock_out(running, postgres_url, is_out=True)
    try:
        with running.client("alice") as alice:
            answers = [alice.get(path) for path in OUTAGE]
    finally:
        lock_out(running, postgres_url, is_out=False)
    assert {answer.status_code for answer in answers} == {503}
    told += map(whole, answers)
    with running.client("alice") as alice:
        told.append(
            run_to_end(alice, alice.post("/api/v1/samples/mutual-nda.pdf/documents").json()["document_id"])
        )

    superuser = urlsplit(postgres_url)._replace(path=urlsplit(running.database_url).path).geturl()
    kept = (path for path in (running.folder / "broker").rglob("*") if path.is_file())
    places = {
        "answer": told,
        "log": running.logs().splitlines(),
        "table": everything_in(superuser),
        "broker": [path.read_bytes().decode("latin-1") for path in kept],
    }
    assert all(places[place] for place in ("answer", "log", "table"))
    found = [
        (place, text) for place, texts in places.items() for text in texts if any(map(text.__contains__, secrets))
    ]
    assert found == []


def test_the_broker_carries_a_runs_id_and_nothing_else(tmp_path):
    """No user, no input, no context to seal: the worker finds all of it in the database, under the run's lease."""
    run_id = uuid4()
    folder = tmp_path / "broker"
    folder.mkdir(mode=0o700)

    async def send():
        async with aclosing(CeleryJobQueue(f"safefs://{folder}")) as queue:
            await queue.enqueue(run_id)

    asyncio.run(send())
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    [message] = [json.loads(text) for text in texts if EXECUTE_RUN in text]
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == ([str(run_id)], {})
    assert message["headers"].keys() <= OF_CELERY


OF_CELERY = {
    *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "meth", "shadow", "eta", "expires"),
    *("retries", "timelimit", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting"),
    *("stamps", "stamped_headers"),
}
"""What Celery writes into a message by itself."""


SETTINGS = {
    "keys that are no JSON": {"WORKFLOW_API_KEYS": '{"alice": "MARKED-key"'},
    "keys that are a list": {"WORKFLOW_API_KEYS": '["MARKED-key"]'},
    "keys that are no text": {"WORKFLOW_API_KEYS": '{"alice": ["MARKED-key"]}'},
    "tokens without algorithm": {"WORKFLOW_JWT_SECRET": "MARKED-secret"},
    "a short secret": {
        "WORKFLOW_JWT_SECRET": "MARKED-secret",
        "WORKFLOW_JWT_ALGORITHM": "HS256",
        "WORKFLOW_JWT_ISSUER": "x",
        "WORKFLOW_JWT_AUDIENCE": "x",
    },
    "a key of a service that is none": {"WORKFLOW_SERVICES__WEATHERAPI__API_KEY": '["MARKED-service"]'},
    "a setting of a service that is none": {
        "WORKFLOW_SERVICES__WEATHERAPI__API_KEY": "MARKED-service",
        "WORKFLOW_SERVICES__WEATHERAPI__ATTEMPTS": "MARKED",
    },
    "a number that is none": {"WORKFLOW_RUN_LEASE": "MARKED"},
}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_wrong_setting_is_named_without_its_value(what, monkeypatch):
    """Also in the traceback that a server prints when it does not start."""
    for name, value in (GOOD | SETTINGS[what]).items():
        monkeypatch.setenv(name, value)
    try:
        chosen = Settings.from_environment()
    except Exception:
        said = traceback.format_exc()
        assert MARK not in said
        assert "Error" in said
    else:
        assert MARK not in repr(chosen.model_dump(exclude={"database_url", "broker_url"}))


@pytest.mark.parametrize(
    ("command", "changes", "until"),
    [
        (API, {}, None),
        (API, {"DATABASE_URL": "postgresql://nobody:MARKED/data#base@127.0.0.1/none"}, None),
        (WORKER, {}, "Cannot connect to"),
    ],
)
def test_a_server_that_is_away_is_named_without_its_password(command, changes, until, tmp_path):
    """Database or broker, by what a process prints that cannot reach it, traceback included."""
    started = subprocess.Popen(
        (sys.executable, "-m", *command),
        env=os.environ | GOOD | changes,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    try:
        for line in started.stdout:
            said.append(line)
            if until is not None and until in line:
                break
    finally:
        started.terminate()
        said.append(started.communicate(timeout=BOUND)[0])
    assert "".join(said)
    assert MARK not in "".join(said)


@pytest.mark.parametrize("arguments", [("list",), ("create", "alice")])
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://nobody:MARKED-database@127.0.0.1:1/none",
        "postgresql://nobody:MARKED-database@127.0.0.1:port/none",
        "postgresql://nobody:MARKED/data#base@127.0.0.1/none",
        "mysql://nobody:MARKED-database@127.0.0.1/none",
    ],
)
def test_commands_tell_no_secret(arguments, address, monkeypatch):
    """A database that cannot be used is named without its password, with an exit code."""
    monkeypatch.setenv("DATABASE_URL", address)
    ended = CliRunner().invoke(main, ["keys", *arguments])
    assert ended.exit_code == 1
    assert "DATABASE_URL" in ended.stderr
    assert MARK not in ended.output
