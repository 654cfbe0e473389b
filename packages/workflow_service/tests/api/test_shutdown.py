"""Requests that a server which stops has no more time for."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from workflow_service.api.connections import PatientProtocol
from workflow_service.api.failures import Failures

BOUND = 30.0  # seconds


@pytest.mark.parametrize("path", ["/wait", "/stream"])
def test_cut_request_is_answered_and_no_fault(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """One that waits gets a 503 that says to try again; an answer half sent is broken off; no fault is logged."""
    with caplog.at_level(logging.INFO):
        asyncio.run(ask_a_server_that_stops(path))
    assert "cut off by the shutdown" in caplog.text
    assert "Traceback" not in caplog.text


async def ask_a_server_that_stops(path: str) -> None:
    """Ask for what never ends, and stop the server once it has begun."""
    arrived, never = asyncio.Event(), asyncio.Event()

    async def wait(_request: Request) -> Response:
        arrived.set()
        await never.wait()
        return Response()

    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        arrived.set()
        await never.wait()

    async def stream(_request: Request) -> Response:
        return StreamingResponse(parts(), headers={"Content-Length": "8"})

    app = Starlette(routes=[Route("/wait", wait), Route("/stream", stream)], middleware=[Middleware(Failures)])
    config = uvicorn.Config(
        app, http=PatientProtocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        async with (
            asyncio.timeout(BOUND),
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False, timeout=BOUND
            ) as client,
        ):
            asking = asyncio.create_task(client.get(path))
            await arrived.wait()
            server.should_exit = True
            if path == "/wait":
                answer = await asking
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["title"] == "The service is stopping"
            else:
                with pytest.raises(httpx.RemoteProtocolError):
                    await asking
            await serving
