"""Clients that submit runs, cancel some of them, and see that each ends as it should."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any
from uuid import uuid4

import httpx
from installations import Installation

SHARES = {"contract_analysis": 5, "emergency_contacts": 4, "cancelled": 1}
_PLACES = ("Berlin", "London", "Tokyo")
_PAUSE = 0.3  # seconds of a client between two runs: people think
_LONGEST = 120.0  # seconds a run may take, restarts included
_FINAL = {"succeeded", "failed", "cancelled", "dead"}
_AWAY = (httpx.TransportError, OSError, ValueError)  # ValueError: no address is written, the service restarts


class Load:
    """Runs clients on a thread of its own."""

    def __init__(self, installation: Installation, clients: int) -> None:
        self._installation = installation
        self._clients = clients
        self._is_over = threading.Event()
        self._random = random.Random(0)
        self._accepted = 0
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let clients work while the body runs; then each ends its last run."""
        thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="clients")
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        while not self._is_over.is_set():
            [kind] = self._random.choices([*SHARES], [*SHARES.values()])
            try:
                async with asyncio.timeout(_LONGEST):
                    ended = await self._run(kind)
            except TimeoutError:
                self.wrong.append(f"{kind}: no end within {_LONGEST:.0f} s")
            except Exception as error:
                self.wrong.append(f"{kind}: {error!r}")
            else:
                self.ended[f"{kind}: {ended}"] += 1
            await asyncio.sleep(_PAUSE)

    async def _run(self, kind: str) -> str:
        workflow = kind
        if kind == "cancelled":
            workflow = self._random.choice(("contract_analysis", "emergency_contacts"))
        if workflow == "contract_analysis":
            name = self._random.choice(("mutual-nda.pdf", "services-agreement.docx"))
            content = files("workflow_service").joinpath("samples", name).read_bytes()
            document = await self._ask("POST", "/api/v1/documents", 201, files={"file": (name, content)})
            data: dict[str, Any] = {"document_id": document["document_id"]}
        else:
            data = {"location": self._random.choice(_PLACES)}
        body = {"workflow_name": workflow, "input_data": data, "options": {}}
        # The key makes a second try of the same request harmless: an API that was killed may have committed it.
        accepted = await self._ask("POST", "/api/v1/workflows/execute", 202, json=body, key=uuid4().hex)
        run_id = accepted["run_id"]
        self._accepted += 1
        if kind == "cancelled":
            mode = self._random.choice(("drain", "interrupt", "rollback"))
            await self._ask("POST", f"/api/v1/runs/{run_id}/cancel", 202, 409, json={"mode": mode})
        while True:
            run = await self._ask("GET", f"/api/v1/runs/{run_id}/wait?timeout=10", 200)
            if run["status"] in _FINAL:
                break
        expected = {"succeeded", "cancelled"} if kind == "cancelled" else {"succeeded"}
        if run["status"] not in expected:
            self.wrong.append(f"{workflow}: {run['status']} {run['error']} (run {run_id})")
        return str(run["status"])

    async def _ask(self, method: str, path: str, *wanted: int, key: str | None = None, **content: Any) -> Any:
        """Ask until somebody answers: an API that is killed or restarted is away for a moment."""
        headers = {} if key is None else {"Idempotency-Key": key}
        while True:
            try:
                async with self._installation.client() as client:
                    response = await client.request(method, path, headers=headers, **content)
            except _AWAY:
                await asyncio.sleep(0.2)
                continue
            if response.status_code in wanted:
                return response.json()
            if response.status_code != 503:  # that one says: try again
                raise AssertionError(f"{method} {path}: {response.status_code} {response.text[:300]}")
            await asyncio.sleep(0.2)

    async def finish(self) -> None:
        """See that the service knows as many runs as were accepted, and that all have ended."""
        known: Counter[str] = Counter()
        cursor = ""
        while True:
            page = await self._ask("GET", f"/api/v1/runs?limit=100{cursor}", 200)
            known.update(run["status"] for run in page["runs"])
            if page["next"] is None:
                break
            cursor = f"&before={page['next']}"
        if known.total() != self._accepted:
            self.wrong.append(f"{self._accepted} runs were accepted, the service knows {known.total()}")
        if unfinished := {status: number for status, number in known.items() if status not in _FINAL}:
            self.wrong.append(f"runs that have not ended: {unfinished}")
