"""
What does an HTTP request cost, called from sync code, and how many connections does it open?

Peers run side by side in one process, in interleaved rounds; a server in another process counts
the connections of each. Ratios are to the client per request of the documents that started
homeloop. The server speaks plain HTTP: what TLS costs here is the client's context, not handshakes.

Usage: python bench/http_requests.py [--rounds N] [--seconds S] [--json FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from rounds import Peer, in_rounds, stay_on_one_cpu, versions

import homeloop
from homeloop.http import loop_local_client, shared_ssl_context

PER_REQUEST = "new client per request"
BY_HAND = "loop thread and client by hand"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def serve(pipe: Connection) -> None:
    """Answer until told to stop; then tell the connections of each path."""
    connections: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = False
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not known:
                    connections[head.split(b" ")[1].decode()] += 1
                    known = True
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()  # cancelled: the peer that fails leaves its last connection open

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.to_thread(pipe.recv)
        pipe.send(dict(connections))

    asyncio.run(main())


async def fetch(client: Any, url: str) -> None:
    """The work, with httpx or httpx2."""
    assert (await client.get(url)).text == "ok"


async def fetch_aiohttp(session: Any, url: str) -> None:
    """The work, with aiohttp."""
    async with session.get(url) as response:
        assert await response.text() == "ok"


def per_request(url: str, **options: Any) -> Peer:
    """What the documents did: a client for each request, on the loop of each task."""

    async def request() -> None:
        async with httpx.AsyncClient(**options) as client:
            await fetch(client, url)

    return Peer(lambda: asyncio.run(request()))


def global_client(url: str) -> Peer:
    """One client for the process under a loop per task: what fails in the documents."""
    client = httpx.AsyncClient()
    return Peer(lambda: asyncio.run(fetch(client, url)))


def by_hand(url: str, make: Callable[[], Any], work: Callable[[Any, str], Any], close: str) -> Peer:
    """A loop on a thread, a client on the loop: what people write who know."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def open_client() -> Any:
        return make()

    client = call(open_client())

    def stop() -> None:
        call(getattr(client, close)())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    return Peer(lambda: call(work(client, url)), stop)


def at_home(url: str, make: Callable[[Any], Any], work: Callable[[Any, str], Any]) -> Peer:
    """homeloop: a runtime and a client per loop."""
    runtime = homeloop.LoopRuntime(name="bench")
    clients = loop_local_client(make, name="bench client")

    async def request() -> None:
        async with clients() as client:
            await work(client, url)

    return Peer(lambda: runtime.run(request), runtime.close)


def scoped(url: str) -> Peer:
    """homeloop: a client of each task's own, with the shared TLS context."""
    runtime = homeloop.LoopRuntime(name="bench-scope")
    clients = loop_local_client(lambda tls: httpx.AsyncClient(verify=tls), name="scoped client")

    async def request() -> None:
        async with homeloop.resource_scope(), clients() as client:
            await fetch(client, url)

    return Peer(lambda: runtime.run(request), runtime.close)


def peers(origin: str) -> dict[str, Peer]:
    """Everybody who is installed; each asks for a path of its own, the number of its place."""
    paths = iter(range(100))

    def url() -> str:
        return f"{origin}/{next(paths)}"

    found = {
        PER_REQUEST: per_request(url()),
        "the same, shared TLS context": per_request(url(), verify=shared_ssl_context()),
        "global client, asyncio.run": global_client(url()),
        BY_HAND: by_hand(url(), httpx.AsyncClient, fetch, "aclose"),
        "homeloop": at_home(url(), lambda tls: httpx.AsyncClient(verify=tls), fetch),
        "homeloop, client per scope": scoped(url()),
    }
    try:
        import aiohttp
    except ImportError:
        pass
    else:
        found[f"{BY_HAND}, aiohttp"] = by_hand(url(), aiohttp.ClientSession, fetch_aiohttp, "close")
        found["homeloop, aiohttp"] = at_home(
            url(),
            lambda tls: aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)),
            fetch_aiohttp,
        )
    return found


def measure(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return what `in_rounds` does of each peer, and its connections."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    stay_on_one_cpu()
    everybody = peers(f"http://127.0.0.1:{ours.recv()}")
    found = in_rounds(everybody, rounds, seconds, {"to_base": PER_REQUEST, "to_hand": BY_HAND})
    ours.send(None)
    connections = ours.recv()
    server.join()
    return {
        name: {**row, "connections": connections.get(f"/{number}", 0)}
        for number, (name, row) in enumerate(found.items())
    }


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each peer in each round")
    parser.add_argument("--json", help="also write the figures there")
    options = parser.parse_args()
    print(versions("homeloop", "httpx", "aiohttp"))
    table = measure(options.rounds, options.seconds)
    print(
        "\n| | requests/s | to client per request | to by hand | failed | connections |\n|---|---|---|---|---|---|"
    )
    for name, row in sorted(table.items(), key=lambda item: item[1]["rate"]):
        to_others = f"{row['to_base']:.1f} | {row['to_hand']:.2f}"
        print(f"| {name} | {row['rate']:.0f} | {to_others} | {row['failed']:.0f} | {row['connections']:.0f} |")
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
