"""The guards of HTTP clients pass the conformance kit, on a real server."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from homeloop.testing import CHECKS, Part, Subject

Check = Callable[[Subject[Any]], None]


def httpx_client(product: Any, url: str) -> Subject[Any]:
    async def get(client: Any) -> str:
        return str((await client.get("/hello")).text)

    @asynccontextmanager
    async def streamed(client: Any) -> AsyncIterator[Any]:
        async with client.stream("GET", "/lines") as response:
            yield response

    async def stream(client: Any) -> None:
        async with client.stream("GET", "/lines"):
            pass

    async def read(response: Any) -> None:
        assert await response.aread() == b"one\ntwo\n"

    return Subject(
        factory=lambda: product.AsyncClient(base_url=url),
        kind=product.AsyncClient,
        use=get,
        slow=lambda client: client.get("/slow", timeout=30),
        entries={
            "get": get,
            "stream": stream,
            "send": lambda client: client.send(client.build_request("GET", "/hello")),
            "aclose": lambda client: client.aclose(),
        },
        parts={
            "response": Part(
                open=streamed,
                entries={
                    "aread": lambda response: response.aread(),
                    "iterate": lambda response: anext(response.aiter_lines()),
                    "aclose": lambda response: response.aclose(),
                },
                use=read,
            )
        },
    )


def aiohttp_session(url: str) -> Subject[Any]:
    async def get(session: aiohttp.ClientSession) -> str:
        async with session.get("/hello") as response:
            return await response.text()

    async def wait(session: aiohttp.ClientSession) -> None:
        async with session.get("/slow"):
            pass

    async def read(response: aiohttp.ClientResponse) -> None:
        assert await response.content.readline() == b"one\n"

    async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_str(json.dumps(1))
        assert await socket.receive_json() == 1

    return Subject(
        factory=lambda: aiohttp.ClientSession(url),
        kind=aiohttp.ClientSession,
        use=get,
        slow=wait,
        entries={
            "get": get,
            "web socket": lambda session: session.ws_connect("/echo"),
            "close": lambda session: session.close(),
        },
        parts={
            "response": Part(
                open=lambda session: session.get("/lines"),
                entries={
                    "read": lambda response: response.read(),
                    "body": lambda response: response.content.readline(),
                    "iterate": lambda response: anext(aiter(response.content)),
                    "release": lambda response: response.release(),
                },
                use=read,
            ),
            "web socket": Part(
                open=lambda session: session.ws_connect("/echo"),
                entries={
                    "send": lambda socket: socket.send_str("1"),
                    "receive": lambda socket: socket.receive(),
                    "close": lambda socket: socket.close(),
                },
                use=talk,
            ),
        },
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("product", [httpx, httpx2], ids=lambda product: product.__name__)
def test_httpx(check: Check, product: Any, server: str) -> None:
    """Clients of both httpx refuse strangers, and keep working for their owner."""
    check(httpx_client(product, server))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_aiohttp(check: Check, server: str) -> None:
    """Sessions refuse strangers, and keep working for their owner."""
    check(aiohttp_session(server))
