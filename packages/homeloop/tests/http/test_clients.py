"""HTTP clients: one per loop or scope, closed where it lives, on success, error and cancellation."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import pytest

from homeloop import LoopLocal, LoopRuntime, resource_scope
from homeloop.http import loop_local_client, shared_ssl_context

BOUND = 10.0  # seconds for something that happens at once


class Server:
    """An HTTP server that keeps connections and counts them."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0
        self.changed = asyncio.Condition()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}/"

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def until_open(self, count: int) -> None:
        """Wait until so many connections are open."""
        async with self.changed, asyncio.timeout(BOUND):
            await self.changed.wait_for(lambda: self.open == count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._count(1)
        try:
            while (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET / "):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await reader.read()  # any other path is never answered
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self.changed:
            self.open += change
            self.opened += change > 0
            self.changed.notify_all()


class Site:
    """The server on a loop of its own, and its address."""

    def __init__(self, home: LoopRuntime) -> None:
        self.home = home
        self.server = home.run(self._make)
        self.url = home.run(self.server.start)

    async def _make(self) -> Server:
        return Server()

    def wait_open(self, count: int) -> None:
        self.home.run(self.server.until_open, count)


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that lives on a loop of its own."""
    with LoopRuntime(name="server") as home:
        one = Site(home)
        yield one
        one.wait_open(0)
        home.run(one.server.stop)


Fetch = Callable[[Any, str], Any]


async def _httpx_fetch(client: Any, url: str) -> str:
    return (await client.get(url)).text


async def _aiohttp_fetch(client: Any, url: str) -> str:
    async with client.get(url) as response:
        return await response.text()


@pytest.fixture(params=["httpx", "httpx2", "aiohttp"])
def product(request: pytest.FixtureRequest) -> tuple[LoopLocal[Any], Fetch]:
    """Clients of one product, and how it fetches."""
    module = import_module(request.param)
    if request.param == "aiohttp":
        session = lambda tls: module.ClientSession(connector=module.TCPConnector(ssl=tls))  # noqa: E731
        return loop_local_client(session), _aiohttp_fetch
    return loop_local_client(lambda tls: module.AsyncClient(verify=tls)), _httpx_fetch


def test_each_loop_has_one_client(product, site: Site, runtime: LoopRuntime) -> None:
    """Calls of one loop share a client and its connections; another loop has another, closed with the loop."""
    clients, fetch = product

    async def three() -> list[str]:
        async with clients() as client:
            return [await fetch(client, site.url) for _ in range(3)]

    assert runtime.run(three) == runtime.run(three) == ["ok"] * 3
    assert (site.server.opened, site.server.open) == (1, 1)
    assert asyncio.run(three()) == ["ok"] * 3
    site.wait_open(1)
    assert site.server.opened == 2
    clients.close()
    site.wait_open(0)


@pytest.mark.parametrize("end", ["success", "error", "cancellation"])
def test_scopes_client_is_closed_however_it_ends(product, end: str, site: Site, runtime: LoopRuntime) -> None:
    """B4: a client of a context is closed at its end: on success, on error, on cancellation in a request."""
    clients, fetch = product

    async def work() -> None:
        async with resource_scope(), clients() as client:
            await fetch(client, site.url)
            if end == "error":
                raise ZeroDivisionError
            if end == "cancellation":
                asyncio.current_task().cancel()
                await fetch(client, f"{site.url}never")

    async def main() -> None:
        outcome = {"error": ZeroDivisionError, "cancellation": asyncio.CancelledError}.get(end)
        task = asyncio.ensure_future(work())
        await asyncio.wait((task,), timeout=BOUND)
        assert task.cancelled() if end == "cancellation" else type(task.exception()) is (outcome or type(None))

    runtime.run(main)
    site.wait_open(0)
    assert clients.statistics().live == 0


def test_clients_share_one_context_and_a_client_of_http2_does_not() -> None:
    """One TLS context for all loops; it verifies; HTTP/2 has one of its own."""
    seen: list[ssl.SSLContext] = []

    def client(tls: ssl.SSLContext) -> object:
        seen.append(tls)
        return object()

    for clients in (loop_local_client(client), loop_local_client(client), loop_local_client(client, http2=True)):
        asyncio.run(clients.get())
    assert seen[0] is seen[1] is shared_ssl_context()
    assert seen[2] is shared_ssl_context(http2=True) is not seen[0]
    assert all(tls.verify_mode == ssl.CERT_REQUIRED and tls.check_hostname for tls in seen)
    assert str(loop_local_client(client)).endswith("client")
    assert str(loop_local_client(partial(client))) == str(loop_local_client(client))


@pytest.mark.parametrize("made", [None, object()])
def test_a_client_instead_of_a_factory_is_refused(made: Any) -> None:
    """At once, not on the first request."""
    with pytest.raises(TypeError, match="not the client"):
        loop_local_client(made)
