"""The whole service, started as a user starts it, on each broker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

START_BOUND = 60.0  # seconds until the service must be ready
STOP_BOUND = 40.0
STEP_BOUND = 60.0  # seconds until something that must happen has happened

COMMAND = (sys.executable, "-m", "workflow_service")


@dataclass(frozen=True, slots=True)
class Installation:
    """A running service: its home, its API, its database."""

    home: Path
    api: httpx.Client
    database_url: str

    def upload(self, name: str, content: bytes) -> str:
        """Upload a contract and return its document id."""
        response = self.api.post("/api/v1/documents", files={"file": (name, content)})
        response.raise_for_status()
        return str(response.json()["document_id"])

    def execute(self, document_id: str) -> str:
        """Start its analysis and return the run id."""
        body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document_id}}
        response = self.api.post("/api/v1/workflows/execute", json=body)
        response.raise_for_status()
        return str(response.json()["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run as the API shows it."""
        response = self.api.get(f"/api/v1/runs/{run_id}")
        response.raise_for_status()
        return dict(response.json())

    def wait_for_end(self, run_id: str) -> dict[str, Any]:
        """Wait until a run has ended and return it."""
        return wait_until(lambda: run if (run := self.run(run_id))["finished_at"] else None)

    def worker_pids(self) -> list[int]:
        """Return the workers that `up` has started and that it knows of."""
        records = [json.loads(file.read_text()) for file in (self.home / "processes").glob("*.json")]
        return [record["pid"] for record in records if record["name"] == "the worker"]


def wait_until(look: Callable[[], Any]) -> Any:
    """Return what ``look`` returns once it is true; fail after the bound."""
    deadline = time.monotonic() + STEP_BOUND
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("what was waited for did not happen")


@pytest.fixture
def install(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Start the service on a home of its own with settings for its environment; check that it stops."""

    @contextmanager
    def start(**environment: str) -> Iterator[Installation]:
        home, log = tmp_path / "home", tmp_path / "up.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "up", "--home", str(home), "--port", "0"],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield from _serve(home, process, log)
            process.terminate()
            assert process.wait(STOP_BOUND) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            print(log.read_text())

    return start


def _serve(home: Path, process: "subprocess.Popen[bytes]", log: Path) -> Iterator[Installation]:
    connection = wait_until(lambda: _connection(home, process, log))
    key = next(iter(connection["api_keys"].values()))
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=connection["address"], headers=headers, trust_env=False, timeout=30) as api:
        wait_until(lambda: _is_ready(api, process, log))
        yield Installation(home, api, connection["database_url"])


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
