"""Follow a run over HTTP: server-sent events, reconnection, disconnection, shutdown."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx
import jwt
import pytest

from workflow_service.api.routes import runs as runs_module
from workflow_service.domain.run import Progress
from workflow_service.gateways.json_web_tokens import FixedKey, JsonWebTokens
from workflow_service.gateways.postgres.api_keys import PostgresApiKeyStore
from workflow_service.gateways.postgres.single import single_connection
from workflow_service.usecases import following as following_module
from workflow_service.usecases import identification as identification_module
from workflow_service.usecases.identification import Identification

pytestmark = pytest.mark.needs("postgres")

EXECUTE = "/api/v1/workflows/execute"


@pytest.fixture
def run_id(client):
    return client.post(EXECUTE, json={"workflow_name": "idle", "input_data": {}}).json()["run_id"]


def read_events(lines):
    """Yield the events of a stream as dictionaries of their fields; comments have the key «»."""
    fields = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield fields
            fields = {}


def play(server, run_id, steps=3):
    claim = server.claim(run_id)
    for n in range(steps):
        progress = Progress(f"step {n}", n * 10, f"Step {n}\nof many")
        server.call(lambda services, progress=progress: services.runs.record_progress(claim, progress))
    server.call(lambda services: services.runs.succeed(claim, {}))


def test_a_stream_carries_every_event_and_ends_after_the_last(client, server, run_id):
    """Name, id and data of each event are right, live and in order, and the server closes the stream."""
    with client.stream("GET", f"/api/v1/runs/{run_id}/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        events = read_events(response.iter_lines())
        first = next(events)
        assert (first["id"], first["event"]) == ("1", "queued")
        play(server, run_id)
        rest = [event for event in events if "data" in event]
    assert [event["id"] for event in rest] == ["2", "3", "4", "5", "6"]
    assert [event["event"] for event in rest] == ["started", "progress", "progress", "progress", "succeeded"]
    data = [json.loads(event["data"]) for event in rest]
    assert [entry["seq"] for entry in data] == [2, 3, 4, 5, 6]
    assert data[2].keys() == {"seq", "kind", "data", "at"}
    assert data[2]["data"] == {"step": "step 1", "percent": 10, "description": "Step 1\nof many"}


def test_a_stream_goes_on_after_the_last_event_that_was_seen(client, server, run_id):
    """Last-Event-ID skips what the client has; with nothing left of a finished run the answer is 204."""
    play(server, run_id)
    address = f"/api/v1/runs/{run_id}/events"
    response = client.get(address, headers={"Last-Event-ID": "4"})
    assert [event["id"] for event in read_events([*response.text.splitlines(), ""])] == ["5", "6"]
    for seen in ("6", "99"):
        assert client.get(address, headers={"Last-Event-ID": seen}).status_code == 204


@pytest.mark.parametrize("value", ["-1", "x", "99999999999999"])
def test_a_last_event_id_that_is_no_number_of_an_event_is_422(client, run_id, value):
    """A broken client is told, and does not silently get everything again."""
    assert client.get(f"/api/v1/runs/{run_id}/events", headers={"Last-Event-ID": value}).status_code == 422


def test_a_silent_stream_carries_comments(serve, monkeypatch):
    """Between events comments keep the connection open."""
    monkeypatch.setattr(runs_module, "HEARTBEAT", 0.05)
    server = serve()
    with server.client() as client:
        run_id = client.post(EXECUTE, json={"workflow_name": "idle", "input_data": {}}).json()["run_id"]
        with client.stream("GET", f"/api/v1/runs/{run_id}/events") as response:
            events = read_events(response.iter_lines())
            first = next(event for event in events if "event" in event)  # comments may come before it, too
            assert first["event"] == "queued"
            assert [set(next(events)) for _ in range(3)] == [{""}] * 3


def test_a_client_that_leaves_is_forgotten(client, server, run_id, wait_until):
    """Closing the connection ends the follower, with nothing happening to the run."""
    with client.stream("GET", f"/api/v1/runs/{run_id}/events") as response:
        lines = response.iter_lines()  # the connection closes when this goes
        assert next(read_events(lines))["event"] == "queued"
        assert UUID(run_id) in server.services.feed._changes
    wait_until(lambda: not server.services.feed._changes)


@pytest.fixture
def at_once(monkeypatch):
    """A follower is looked at often, and a key is believed for no time."""
    monkeypatch.setattr(following_module, "LOOK_ANYWAY", 0.05)
    monkeypatch.setattr(identification_module, "REMEMBERED", 0.0)


@pytest.fixture
def keys(database):
    """The store of keys, beside the server."""
    return PostgresApiKeyStore(single_connection(database))


def test_a_stream_ends_when_its_key_is_revoked(at_once, keys, server):
    """It ends without a final event, though the run goes on, and who connects again is told 401."""
    key, kept = asyncio.run(keys.create("alice"))
    with server.client(key) as client:
        run_id = client.post(EXECUTE, json={"workflow_name": "idle", "input_data": {}}).json()["run_id"]
        address = f"/api/v1/runs/{run_id}/events"
        with client.stream("GET", address) as response:
            events = read_events(response.iter_lines())
            assert next(events)["event"] == "queued"
            server.claim(run_id)
            assert next(events)["event"] == "started", "as long as the key is good it goes on"
            asyncio.run(keys.revoke(kept.prefix))
            assert [event for event in events if "data" in event] == []
        assert client.get(address).status_code == 401


def test_a_stream_ends_when_its_token_expires(at_once, keys, serve):
    """As with a key that is revoked."""
    secret = "a secret of the tests' own, long enough"
    tokens = JsonWebTokens("HS256", FixedKey(secret), "issuer", "audience", leeway=0)
    server = serve(identification=Identification({}, keys, tokens))
    claims = {"sub": "alice", "iss": "issuer", "aud": "audience", "exp": int(time.time()) + 3}
    with server.client(jwt.encode(claims, secret, "HS256")) as client:
        run_id = client.post(EXECUTE, json={"workflow_name": "idle", "input_data": {}}).json()["run_id"]
        with client.stream("GET", f"/api/v1/runs/{run_id}/events") as response:
            events = [event["event"] for event in read_events(response.iter_lines()) if "data" in event]
        assert events == ["queued"]
        assert time.time() >= claims["exp"]


def test_who_waits_with_a_key_that_is_revoked_gets_401(at_once, keys, server):
    """The answer is the run's only for who is still known when it comes."""
    key, kept = asyncio.run(keys.create("alice"))
    with server.client(key) as client, ThreadPoolExecutor(1) as elsewhere:
        run_id = client.post(EXECUTE, json={"workflow_name": "idle", "input_data": {}}).json()["run_id"]
        waiting = elsewhere.submit(client.get, f"/api/v1/runs/{run_id}/wait", params={"timeout": 20})
        while UUID(run_id) not in server.services.feed._changes:
            assert not waiting.done()
        asyncio.run(keys.revoke(kept.prefix))
        claim = server.claim(run_id)
        server.call(lambda services: services.runs.succeed(claim, {}))
        answer = waiting.result(30)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].endswith('error="invalid_token"')


def test_many_followers_see_the_same_and_hold_no_connection(client, server, run_id):
    """Far more followers than pool connections wait at once, and each sees the whole run."""
    with httpx.Client(
        base_url=server.address,
        headers=client.headers,
        trust_env=False,
        timeout=30,
        limits=httpx.Limits(max_connections=50),
    ) as http:
        streams = [http.stream("GET", f"/api/v1/runs/{run_id}/events") for _ in range(30)]
        responses = [stream.__enter__() for stream in streams]
        try:
            play(server, run_id)
            seen = [[event["id"] for event in read_events(response.iter_lines())] for response in responses]
        finally:
            for stream in streams:
                stream.__exit__(None, None, None)
    assert seen == [["1", "2", "3", "4", "5", "6"]] * 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_do_not_hold_up_a_shutdown(environment, number, tmp_path):
    """A server that is told to stop ends its streams and exits by itself, with nobody forcing it."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "workflow_service.api.app:create_app"),
        *("--fd", str(listener.fileno()), "--timeout-graceful-shutdown", "60"),
    ]
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, pass_fds=[listener.fileno()], env=environment, stdout=out, stderr=out
        ) as process,
    ):
        try:
            listener.close()
            with httpx.Client(
                base_url=address, headers={"Authorization": "Bearer alice's key"}, trust_env=False, timeout=60
            ) as client:
                document = client.post("/api/v1/documents", files={"file": ("a.txt", b"text")}).json()
                answer = client.post(
                    EXECUTE,
                    json={
                        "workflow_name": "contract_analysis",
                        "input_data": {"document_id": document["document_id"]},
                    },
                ).json()
                with client.stream("GET", f"/api/v1/runs/{answer['run_id']}/events") as response:
                    lines = response.iter_lines()
                    assert next(read_events(lines))["event"] == "queued"
                    process.send_signal(number)
                    assert not any(line.startswith("event:") for line in lines)
            assert process.wait(30) in (0, -number)
        finally:
            process.kill()
    assert not {"Traceback", "ERROR", "exceeded"} & set(log.read_text().replace(":", " ").split())
