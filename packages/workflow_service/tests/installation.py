"""The whole service in processes of its own, started as a user starts it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from workflow_service.local.home import Home
from workflow_service.local.postgresql import kept_cluster
from workflow_service.local.records import read_records

COMMAND = (sys.executable, "-m", "workflow_service")
STOP_BOUND = 40.0  # seconds until everything must have stopped
STEP_BOUND = 90.0  # seconds until something that must happen has happened


@dataclass(frozen=True, slots=True)
class Installation:
    """A running service: its home, its API, its database."""

    home: Path
    address: str
    key: str
    api: httpx.Client
    database_url: str

    def get(self, path: str) -> Any:
        """Return the JSON that the service answers."""
        response = self.api.get(f"/api/v1/{path}")
        response.raise_for_status()
        return response.json()

    def upload(self, name: str, content: bytes) -> str:
        """Upload a contract and return its document id."""
        response = self.api.post("/api/v1/documents", files={"file": (name, content)})
        response.raise_for_status()
        return str(response.json()["document_id"])

    def execute(self, document_id: str, options: Mapping[str, Any] | None = None) -> str:
        """Start its analysis and return the run id."""
        body = {
            "workflow_name": "contract_analysis",
            "input_data": {"document_id": document_id},
            "options": dict(options or {}),
        }
        response = self.api.post("/api/v1/workflows/execute", json=body)
        response.raise_for_status()
        return str(response.json()["run_id"])

    def wait_for_end(self, run_id: str) -> dict[str, Any]:
        """Wait until a run has ended and return it."""
        return dict(wait_until(lambda: run if (run := self.get(f"runs/{run_id}"))["finished_at"] else None))

    def worker_pids(self) -> list[int]:
        """Return the workers that the service has on record."""
        return [record.pid for record in read_records(Home(self.home)) if record.name == "the worker"]


def wait_until(look: Callable[[], Any]) -> Any:
    """Return what ``look`` returns once it is true; fail after the bound."""
    deadline = time.monotonic() + STEP_BOUND
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("what was waited for did not happen")


@contextmanager
def serve(folder: Path, **environment: str) -> Iterator[Installation]:
    """Run ``up`` on a home below ``folder``; afterwards it stops cleanly and its database is gone."""
    home, log = folder / "home", folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "up", "--home", str(home), "--port", "0"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        connection = wait_until(lambda: _connection(home, process, log))
        key = next(iter(connection["api_keys"].values()))
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=connection["address"], headers=headers, trust_env=False, timeout=30) as api:
            wait_until(lambda: _is_ready(api, process, log))
            yield Installation(home, connection["address"], key, api, connection["database_url"])
        process.terminate()
        assert process.wait(STOP_BOUND) == 0
    finally:
        if process.poll() is None:
            _stop(process)
        if home.exists() and (cluster := kept_cluster(Home(home))) is not None:
            cluster.remove()
        print(log.read_text())


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()  # killed, it would leave its API behind
    try:
        process.wait(STOP_BOUND)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _connection(home: Path, process: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any] | None:
    assert process.poll() is None, log.read_text()
    try:
        return dict(json.loads((home / "connection.json").read_text()))
    except (OSError, ValueError):
        return None


def _is_ready(api: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return api.get("/health/ready").is_success
    except httpx.TransportError:
        return False
