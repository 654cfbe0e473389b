"""The API and workers as production runs them: processes of their own, on servers that are there."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

COMMAND = (sys.executable, "-m", "workflow_service")
KEY = "a key of the tests' own"
STEP_BOUND = 150.0  # seconds until something that must happen has happened
_STOP_BOUND = 40.0  # seconds until a process that was told to stop has ended


@dataclass(slots=True)
class Process:
    """One command that serves, and its log."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until it has logged this; it may not end before."""
        wait_until(lambda: text in self.text or self.popen.poll() is not None)
        assert text in self.text, self.text

    def stop(self) -> int:
        """Ask it to stop, as a process manager does, and return the exit code."""
        self.popen.terminate()
        return self.popen.wait(_STOP_BOUND)

    def kill(self) -> None:
        """End it with -9."""
        self.popen.kill()
        self.popen.wait()


@dataclass(slots=True)
class Production:
    """One database, one broker, and processes that come and go."""

    folder: Path
    environment: dict[str, str]
    port: int
    stack: ExitStack
    api: httpx.Client
    started: list[Process] = field(default_factory=list)

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start a command; it is ended with the test."""
        log = self.folder / f"{len(self.started)}-{arguments[0]}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [*COMMAND, *arguments],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        process = Process(arguments[0], popen, log)
        self.started.append(process)
        self.stack.callback(_end, process)
        return process

    def start_api(self, *arguments: str, **environment: str) -> Process:
        """Start the API and wait until it is ready."""
        process = self.start("api", "--port", str(self.port), *arguments, **environment)

        def is_ready() -> bool:
            assert process.popen.poll() is None, process.text
            try:
                return self.api.get("/health/ready").is_success
            except httpx.TransportError:
                return False

        wait_until(is_ready)
        return process

    def start_worker(self, *arguments: str, **environment: str) -> Process:
        """Start a worker and wait until it takes messages."""
        process = self.start("worker", *arguments, **environment)
        process.wait_for(" ready.")
        return process

    def upload(self, name: str, content: bytes) -> str:
        """Upload a contract and return its document id."""
        response = self.api.post("/api/v1/documents", files={"file": (name, content)})
        response.raise_for_status()
        return str(response.json()["document_id"])

    def execute(self, workflow: str, input_data: dict[str, Any], options: dict[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        body = {"workflow_name": workflow, "input_data": input_data, "options": options or {}}
        response = self.api.post("/api/v1/workflows/execute", json=body)
        response.raise_for_status()
        return str(response.json()["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return how a run stands."""
        response = self.api.get(f"/api/v1/runs/{run_id}")
        response.raise_for_status()
        return dict(response.json())

    def wait_for_end(self, run_id: str) -> dict[str, Any]:
        """Wait until a run has ended and return it."""
        return dict(wait_until(lambda: run if (run := self.run(run_id))["finished_at"] else None))


def wait_until(look: Callable[[], Any]) -> Any:
    """Return what ``look`` returns once it is true; fail after the bound."""
    deadline = time.monotonic() + STEP_BOUND
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("what was waited for did not happen")


@contextmanager
def production(folder: Path, database_url: str, broker_url: str, port: int) -> Iterator[Production]:
    """Yield a service without processes; those that are started are ended at the end, their logs printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WORKFLOW_")},
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "WORKFLOW_API_KEYS": f'{{"alice": "{KEY}"}}',
        "WORKFLOW_RUN_LEASE": "60",  # nothing waits for its end, and a busy machine loses no run
        "WORKFLOW_REAP_INTERVAL": "0.5",
        "TMPDIR": str(folder),
    }
    headers = {"Authorization": f"Bearer {KEY}"}
    address = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=30) as api, ExitStack() as stack:
        yield Production(folder, environment, port, stack, api)


def _end(process: Process) -> None:
    if process.popen.poll() is None:
        process.popen.terminate()
        try:
            process.popen.wait(_STOP_BOUND)
        except subprocess.TimeoutExpired:
            process.kill()
    print(f"--- {process.log.name}\n{process.text}")
