"""The service behind PgBouncer in transaction mode, with fewer sessions than it has clients."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from production import KEY, Production, wait_until
from production import production as serve_production

from workflow_service.testing.providers import ProviderServer

pytestmark = [pytest.mark.needs("postgres", "redis", "pgbouncer"), pytest.mark.timeout(300)]

BOBS_KEY = "another key of the tests' own"
RUNS = 10  # of each of two users
SESSIONS = 2
BOUND = 60.0  # seconds


@pytest.fixture
def pooled(
    tmp_path: Path, empty_database: str, redis_url: str, pgbouncer: Callable[..., str]
) -> Iterator[Production]:
    """The pooler, what stands behind it, and no process yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    url = pgbouncer(empty_database, "transaction", SESSIONS)
    with serve_production(tmp_path, url, redis_url, port) as service:
        service.environment |= {
            "WORKFLOW_DATABASE_POOLER": "transaction",
            "WORKFLOW_DATABASE_DIRECT_URL": empty_database,
            "WORKFLOW_API_KEYS": json.dumps({"alice": KEY, "bob": BOBS_KEY}),
        }
        yield service


def follow(api: httpx.Client, run_id: str) -> list[str]:
    """Follow a run to its end, and return the kinds of its events."""
    kinds = []
    with api.stream("GET", f"/api/v1/runs/{run_id}/events", timeout=BOUND) as response:
        for line in response.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
    return kinds


def test_two_users_work_through_a_pooler_of_transactions(pooled: Production) -> None:
    """20 runs of two users succeed, are followed live, cancelled and resumed, and neither sees the other's."""
    sample = files("workflow_service").joinpath("samples", "mutual-nda.pdf").read_bytes()
    bob = httpx.Client(
        base_url=pooled.api.base_url, headers={"Authorization": f"Bearer {BOBS_KEY}"}, trust_env=False
    )
    with ProviderServer() as providers, bob, ThreadPoolExecutor(2 * RUNS) as followers:
        settings = dict(providers.environment)
        pooled.start_api(**settings)
        worker = pooled.start_worker("--pool", "asyncio", "--concurrency", "10", **settings)

        def submit(api: httpx.Client) -> list[str]:
            files_ = {"file": ("mutual-nda.pdf", sample)}
            document_id = api.post("/api/v1/documents", files=files_, timeout=BOUND).json()["document_id"]
            body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document_id}}
            answers = [api.post("/api/v1/workflows/execute", json=body, timeout=BOUND) for _ in range(RUNS)]
            return [answer.json()["run_id"] for answer in answers]

        runs = {api: submit(api) for api in (pooled.api, bob)}
        following = [followers.submit(follow, api, run_id) for api, ids in runs.items() for run_id in ids]
        for each in following:
            assert each.result(BOUND * 2)[-1] == "succeeded"
        for api, stranger in ((pooled.api, bob), (bob, pooled.api)):
            listed = api.get("/api/v1/runs?limit=100").json()["runs"]
            assert {run["id"] for run in listed} == set(runs[api])
            assert {run["status"] for run in listed} == {"succeeded"}
            assert {stranger.get(f"/api/v1/runs/{id_}").status_code for id_ in runs[api]} == {404}
            assert {stranger.get(f"/api/v1/runs/{id_}/events").status_code for id_ in runs[api]} == {404}

        providers.script.gate = threading.Event()
        run_id = pooled.execute("emergency_contacts", {"location": "Berlin"})
        assert providers.script.called.wait(BOUND)
        assert bob.post(f"/api/v1/runs/{run_id}/cancel").status_code == 404
        assert pooled.api.post(f"/api/v1/runs/{run_id}/cancel").status_code == 202
        assert (
            wait_until(lambda: pooled.run(run_id)["finished_at"] and pooled.run(run_id))["status"] == "cancelled"
        )
        providers.script.reset()
        assert bob.post(f"/api/v1/runs/{run_id}/resume").status_code == 404
        assert pooled.api.post(f"/api/v1/runs/{run_id}/resume").status_code == 202
        resumed = wait_until(lambda: pooled.run(run_id)["finished_at"] and pooled.run(run_id))
        assert (resumed["status"], resumed["attempt"]) == ("succeeded", 2)
        assert worker.stop() == 0
    for process in pooled.started:
        assert "Traceback" not in process.text
        assert "prepared statement" not in process.text
