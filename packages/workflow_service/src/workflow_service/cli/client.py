"""A client of the HTTP API: upload, execute, follow, result."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from workflow_service.domain.document import MEDIA_TYPES
from workflow_service.domain.run import EventKind, JsonObject
from workflow_service.local.errors import LocalError

_REQUEST_BOUND = 30.0  # seconds without a byte; the event stream has a heartbeat well below that
_RECONNECT = 0.2  # seconds before following a stream again that ended early


class ApiError(LocalError):
    """The API refused a request, or could not be reached."""


class ServiceClient:
    """Speaks to one running service with one key. Use it as an async context manager."""

    def __init__(self, address: str, key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_REQUEST_BOUND,
            trust_env=False,  # no proxy of the environment stands between this machine and itself
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, exc, trace)

    async def upload(self, document: Path) -> str:
        """Upload a file and return its document id. Raises ApiError, or LocalError if it cannot be read."""
        try:
            content = document.read_bytes()  # noqa: ASYNC240  nothing else runs meanwhile
        except OSError as exc:
            raise LocalError(
                f"the document {document} cannot be read: {exc.strerror}; choose another file"
            ) from exc
        media_type = MEDIA_TYPES.get(document.suffix.lower(), "application/octet-stream")
        files = {"file": (document.name, content, media_type)}
        return str((await self._ask("POST", "/api/v1/documents", files=files))["document_id"])

    async def execute(self, workflow: str, input_data: JsonObject) -> str:
        """Ask for a run and return its id. Raises ApiError."""
        body = {"workflow_name": workflow, "input_data": input_data, "options": {}}
        return str((await self._ask("POST", "/api/v1/workflows/execute", json=body))["run_id"])

    async def follow(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the run's events until a final one; goes on after the last one seen if the stream breaks.

        Raises:
            ApiError: The API refused to tell, or two connections in a row brought nothing.
        """
        last, idle = 0, 0
        while True:
            idle += 1
            try:
                async for event in self._events(run_id, last):
                    last, idle = event["seq"], 0
                    yield event
                    if EventKind(event["kind"]).is_final:
                        return
            except httpx.TransportError as exc:
                if idle > 1:
                    raise ApiError(f"the events of run {run_id} broke off: {exc!r}") from exc
            await asyncio.sleep(_RECONNECT)

    async def result(self, run_id: str) -> dict[str, Any]:
        """Return the result of a finished run. Raises ApiError."""
        return await self._ask("GET", f"/api/v1/runs/{run_id}/result")

    async def run(self, run_id: str) -> dict[str, Any]:
        """Return how a run stands. Raises ApiError."""
        return await self._ask("GET", f"/api/v1/runs/{run_id}")

    async def _events(self, run_id: str, after: int) -> AsyncIterator[dict[str, Any]]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
        async with self._http.stream("GET", f"/api/v1/runs/{run_id}/events", headers=headers) as response:
            if response.is_error:
                await response.aread()
                raise _refusal(response)
            data: list[str] = []
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    data.append(line.removeprefix("data:").removeprefix(" "))
                elif not line and data:  # an empty line ends an event; one without data is a heartbeat
                    yield json.loads("\n".join(data))
                    data = []

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:  # Any: httpx's own arguments
        try:
            response = await self._http.request(method, path, **content)
        except httpx.TransportError as exc:
            raise ApiError(f"{method} {path}: the API could not be reached: {exc!r}") from exc
        if response.is_error:
            raise _refusal(response)
        answer: dict[str, Any] = response.json()
        return answer


def _refusal(response: httpx.Response) -> ApiError:
    """Tell a problem document (RFC 9457) in one line."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    title = problem.get("title") or response.reason_phrase
    detail = f": {problem['detail']}" if problem.get("detail") else ""
    request = response.request
    return ApiError(f"{request.method} {request.url.path} was answered {response.status_code} {title}{detail}")
