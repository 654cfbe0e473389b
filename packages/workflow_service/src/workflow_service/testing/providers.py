"""A server in the formats of WeatherAPI.com (``/weatherapi/v1``) and Google Places (``/google/v1``).

``python -m workflow_service.testing.providers --port 8400``, or `ProviderServer` within a process. It counts
calls, fails on demand and can be slow; ``/control`` does so over HTTP. The key decides too: without one, with
``invalid-key``, ``exhausted-key`` or ``disabled-key`` it answers as the providers do.
"""

import argparse
import asyncio
import logging
import socket
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from workflow_service.testing import google_answers, weather_answers

_CLIENT_CLOSED = 499
_START_BOUND = 30.0  # seconds
_GATE_BOUND = 60.0  # seconds
_GARBAGE = b"<html>502 Bad Gateway</html>"
_KEY_ERRORS = {"": 1002, "invalid-key": 2006, "exhausted-key": 2007, "disabled-key": 2008}


_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Fault:
    """How the next calls of an operation fail, such as «weatherapi.current»; «*» means every operation."""

    operation: str = "*"
    status: int = 503
    times: int = 1
    """So many calls; the ones after them are answered."""
    code: int | None = None
    """WeatherAPI.com's error code; decides the status too."""
    retry_after: str | None = None
    garbage: bool = False
    """Answer 200 with what is no JSON."""
    redirect: str | None = None


@dataclass
class Script:
    """What the server does, and what it has seen."""

    calls: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    delay: float = 0.0
    """Seconds before each answer."""
    called: threading.Event = field(default_factory=threading.Event)
    """Set by each call."""
    gate: threading.Event | None = None
    """Answers wait for it, in a test that holds calls open."""

    def reset(self) -> None:
        """Forget calls and faults, answer at once, and let go of what is held."""
        self.calls.clear()
        self.faults = []
        self.delay = 0.0
        self.called.clear()
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.set()

    def take_fault(self, operation: str) -> Fault | None:
        """Return the fault that this call has, and count it."""
        for fault in self.faults:
            if fault.times > 0 and fault.operation in ("*", operation):
                fault.times -= 1
                return fault
        return None


def create_app(script: Script) -> Starlette:
    """Return the application; ``script`` says how it behaves."""

    async def weather(request: Request) -> Response:
        operation = request.path_params["operation"]
        return await _serve(request, script, f"weatherapi.{operation}", _weather)

    async def google(request: Request) -> Response:
        action = request.path_params.get("action", "details")
        return await _serve(request, script, f"google_places.{action}", _google)

    async def control(request: Request) -> Response:
        if request.method == "POST":
            change = await request.json()
            script.faults = [Fault(**fault) for fault in change.get("faults", ())]
            script.delay = float(change.get("delay", script.delay))
        elif request.method == "DELETE":
            script.reset()
        state = {"calls": dict(script.calls), "faults": [asdict(each) for each in script.faults]}
        return JSONResponse({**state, "delay": script.delay})

    return Starlette(
        routes=[
            Route("/weatherapi/v1/{operation}.json", weather),
            Route("/google/v1/places:{action}", google, methods=["POST"]),
            Route("/google/v1/places/{place_id}", google),
            Route("/control", control, methods=["GET", "POST", "DELETE"]),
        ],
        exception_handlers={ClientDisconnect: _gone, ValueError: _unreadable},
    )


async def _gone(request: Request, _error: Exception) -> Response:
    _logger.warning(
        "%s %s: the client went away before its request was complete", request.method, request.url.path
    )
    return Response(status_code=_CLIENT_CLOSED)  # to nobody


async def _unreadable(request: Request, error: Exception) -> Response:
    _logger.warning("%s %s: the body makes no sense: %s", request.method, request.url.path, error)
    return JSONResponse({"error": f"the body makes no sense: {error}"}, 400)


async def _serve(request: Request, script: Script, operation: str, answer: Any) -> Response:
    script.calls[operation] += 1
    script.called.set()
    fault = script.take_fault(operation)
    if script.delay:
        await asyncio.sleep(script.delay)
    if script.gate is not None:
        await asyncio.to_thread(script.gate.wait, _GATE_BOUND)
    if fault is not None:
        return _failing(fault, operation.partition(".")[0])
    status, data = await answer(request)
    return JSONResponse(data, status)


def _failing(fault: Fault, provider: str) -> Response:
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if fault.garbage:
        return Response(_GARBAGE, media_type="text/html", headers=headers)
    if fault.redirect is not None:
        return RedirectResponse(fault.redirect, 302)
    if provider == "google_places":
        statuses = {code: name for name, code in google_answers.CODES.items()}
        status, data = google_answers.failure(
            statuses.get(fault.status, "INTERNAL"), "The service failed as it was told to."
        )
        return JSONResponse(data, status, headers)
    if fault.code is None:
        return JSONResponse({}, fault.status, headers)
    status, data = weather_answers.failure(fault.code)
    return JSONResponse(data, status, headers)


async def _weather(request: Request) -> tuple[int, Any]:  # Any: JSON
    code = _KEY_ERRORS.get(request.query_params.get("key", ""))
    if code is not None:
        return weather_answers.failure(code)
    return weather_answers.answer(request.path_params["operation"], dict(request.query_params))


async def _google(request: Request) -> tuple[int, Any]:  # Any: JSON
    code = _KEY_ERRORS.get(request.headers.get("x-goog-api-key", ""))
    if code == 1002:
        return google_answers.failure("PERMISSION_DENIED", "The request is missing a valid API key.")
    if code is not None:
        message = "API key not valid. Please pass a valid API key."
        return google_answers.failure("INVALID_ARGUMENT", message, "API_KEY_INVALID")
    mask = request.headers.get("x-goog-fieldmask") or request.query_params.get("fields")
    action = request.path_params.get("action")
    if action is None:
        return google_answers.details(request.path_params["place_id"], mask)
    body = await request.json()
    if action == "searchNearby":
        return google_answers.search_nearby(body, mask)
    return google_answers.search_text(body, mask)


class ProviderServer:
    """The server in a thread of this process: ``with ProviderServer() as server``."""

    def __init__(self, port: int = 0) -> None:
        """Prepare a server on a port of 127.0.0.1; 0 takes a free one."""
        self.script = Script()
        self._listener = socket.create_server(("127.0.0.1", port))
        config = uvicorn.Config(
            create_app(self.script), log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="provider server"
        )

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the settings that lead the services to this server."""
        return environment(self.address)

    def __enter__(self) -> Self:
        """Start it; it listens from here on."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self._server.should_exit = True
        self._thread.join(_START_BOUND)
        self._listener.close()


def environment(address: str) -> Mapping[str, str]:
    """Return the settings that lead the services to a server at ``address``."""
    return {
        "WORKFLOW_PRIVATE_HOSTS": '["127.0.0.1"]',
        "WORKFLOW_SERVICES__WEATHERAPI__API_KEY": "test-key",
        "WORKFLOW_SERVICES__WEATHERAPI__BASE_URL": f"{address}/weatherapi/v1",
        "WORKFLOW_SERVICES__GOOGLE_PLACES__API_KEY": "test-key",
        "WORKFLOW_SERVICES__GOOGLE_PLACES__BASE_URL": f"{address}/google/v1",
    }


def main() -> None:
    """Serve until told to stop; prints the settings that lead the services here."""
    parser = argparse.ArgumentParser(prog="python -m workflow_service.testing.providers", description=__doc__)
    parser.add_argument("--port", type=int, default=8400, help="of 127.0.0.1 (default: %(default)s)")
    port = parser.parse_args().port
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        sys.exit(
            f"port {port} of 127.0.0.1 cannot be used: {error}; end who has it, or choose another with --port"
        )
    for name, value in environment(f"http://127.0.0.1:{listener.getsockname()[1]}").items():
        sys.stdout.write(f"export {name}='{value}'\n")
    sys.stdout.flush()
    config = uvicorn.Config(create_app(Script()), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
