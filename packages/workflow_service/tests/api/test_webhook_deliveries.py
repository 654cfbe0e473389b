"""Webhooks over the API: submitted with a run, delivered, looked at, sent again, kill -9 included."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from workflow_service.domain.run import NewRun
from workflow_service.gateways.postgres.connection import prepare_connection
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.settings import Settings

pytestmark = pytest.mark.needs("postgres")
SECRET = "a secret for these tests"
Wait = Callable[[Callable[[], Any]], None]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Webhooks are set up, may go to this machine, and are looked after often."""
    return settings.model_copy(
        update={"webhook_secrets": (SecretStr(SECRET),), "private_hosts": ("127.0.0.1",), "reap_interval": 0.05}
    )


def execute(client: httpx.Client, url: str) -> httpx.Response:
    """Run the idle workflow with a webhook."""
    body = {"workflow_name": "idle", "input_data": {}, "options": {"webhook_url": url}}
    return client.post("/api/v1/workflows/execute", json=body)


def test_a_run_tells_its_ending(
    client: httpx.Client, bob: httpx.Client, server: Any, receiver: Any, wait_until: Wait
) -> None:
    """The receiver verifies it with the user's secret; the user sees the delivery and nobody else does."""
    run_id = execute(client, receiver.url).json()["run_id"]
    claim = server.claim(run_id)
    server.call(lambda services: services.runs.succeed(claim, {}))
    wait_until(lambda: receiver.received)
    (received,) = receiver.received
    secrets = client.get("/api/v1/webhooks/secrets")
    assert secrets.headers["Cache-Control"] == "no-store"
    (secret,) = secrets.json()["secrets"]
    event = Webhook(secret).verify(received.body, dict(received.headers))
    assert (event["type"], event["data"]["run_id"]) == ("run.succeeded", run_id)
    assert bob.get("/api/v1/webhooks/secrets").json()["secrets"] != [secret]

    path = "/api/v1/webhooks/deliveries"
    wait_until(lambda: client.get(path, params={"status": "delivered"}).json()["deliveries"])
    (delivery,) = client.get(path, params={"run_id": run_id}).json()["deliveries"]
    assert delivery["id"] == received.headers["webhook-id"]
    assert (delivery["url"], delivery["attempts"], delivery["last_status"]) == (receiver.url, 1, 204)
    assert bob.get(path).json() == {"deliveries": [], "next": None}
    assert bob.post(f"{path}/{delivery['id']}/retry").status_code == 404
    again = client.post(f"{path}/{delivery['id']}/retry")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    wait_until(lambda: len(receiver.received) == 2)
    assert receiver.received[1].headers["webhook-id"] == delivery["id"]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://hooks.example/", "must begin with https://"),
        ("https://169.254.169.254/", "is not at a public address"),
        ("nonsense", "must begin with https:// and a host"),
    ],
)
def test_addresses_that_cannot_be_are_refused(url: str, fault: str, client: httpx.Client) -> None:
    """When the run is submitted; no run is made."""
    answer = execute(client, url)
    assert answer.status_code == 422
    assert fault in answer.json()["detail"]
    assert client.get("/api/v1/runs").json()["runs"] == []


def test_without_a_secret_a_run_with_a_webhook_is_refused(serve: Any, settings: Settings) -> None:
    """The answer says what is to be set."""
    settings.webhook_secrets = ()
    with serve().client() as client:
        answer = execute(client, "https://hooks.example/")
        assert answer.status_code == 422
        assert "set WORKFLOW_WEBHOOK_SECRETS" in answer.json()["detail"]
        assert client.get("/api/v1/webhooks/secrets").json() == {"secrets": []}


@contextmanager
def api_process(environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The API in a process of its own; killed at the end."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "workflow_service.api.app:create_app", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def test_a_delivery_survives_kill_9_of_the_api(
    settings: Settings, receiver: Any, environment: dict[str, str], wait_until: Wait
) -> None:
    """An API is killed while the receiver thinks; the next one sends the same delivery again."""
    environment |= {
        "WORKFLOW_WEBHOOK_SECRETS": json.dumps([SECRET]),
        "WORKFLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
        "WORKFLOW_WEBHOOK_TIMEOUT": "60",
        "WORKFLOW_REAP_INTERVAL": "0.05",
    }

    async def with_database(work: Callable[[asyncpg.Pool], Awaitable[Any]]) -> Any:
        async with asyncpg.create_pool(
            settings.database_url, min_size=1, max_size=1, init=prepare_connection
        ) as pool:
            return await work(pool)

    async def end_run(pool: asyncpg.Pool) -> None:
        runs = PostgresRunStore(pool.acquire)
        run, _ = await runs.create(NewRun("alice", "idle", {}, {"webhook_url": receiver.url}))
        claim = await runs.claim(run.id, "worker", 60)
        assert claim is not None
        await runs.succeed(claim, {})

    async def statuses(pool: asyncpg.Pool) -> list[str]:
        return [row["status"] for row in await pool.fetch("SELECT status FROM workflow.webhook_deliveries")]

    async def let_the_lease_be_over(pool: asyncpg.Pool) -> None:
        await pool.execute("UPDATE workflow.webhook_deliveries SET next_attempt_at = clock_timestamp()")

    asyncio.run(with_database(end_run))
    receiver.gate = threading.Event()
    with api_process(environment) as process:
        assert receiver.arrived.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert asyncio.run(with_database(statuses)) == ["pending"]
    asyncio.run(with_database(let_the_lease_be_over))
    receiver.arrived.clear()
    with api_process(environment):
        assert receiver.arrived.wait(60)
        receiver.gate.set()
        wait_until(lambda: asyncio.run(with_database(statuses)) == ["delivered"])
    assert len(receiver.received) == 2
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
