"""What the tests of guards need: an HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from homeloop import LoopRuntime


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def chat(_: web.Request) -> web.Response:
    """Answer as a language model's service does, in the format of OpenAI."""
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return web.json_response(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "any", "choices": [choice]}
    )


async def slow(request: web.Request) -> web.Response:
    await request.app[GONE].wait()
    return web.Response()


async def lines(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one\n")
    await response.write(b"two\n")
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


GONE = web.AppKey("gone", asyncio.Event)


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    application = web.Application()
    application[GONE] = asyncio.Event()
    for path, handler in {"/hello": hello, "/slow": slow, "/lines": lines, "/echo": echo}.items():
        application.router.add_get(path, handler)
    application.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(application, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    application[GONE].set()
    await runner.cleanup()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server on a runtime of its own."""
    with LoopRuntime(name="server") as runtime, runtime.enter(serving()) as url:
        yield url
