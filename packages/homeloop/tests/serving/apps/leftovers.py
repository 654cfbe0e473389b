"""
What calls leave behind: threads, tasks, loops, sockets and descriptors, counted before, between and after. Linux.

Usage: python packages/homeloop/tests/serving/apps/leftovers.py

Each call sends a request over a client of the loop's own (`LoopLocal`). The server runs in another process. What
callers were woken by (one descriptor for each that waited at the same time) is kept for the next ones.
"""

import asyncio
import gc
import multiprocessing
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

import homeloop
from homeloop import LoopLocal, default_runtime
from homeloop.serving import AsyncExecutor

WHAT = ("threads", "tasks", "loops", "sockets", "other descriptors", "kept wake-ups")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CALLERS = 20
clients = LoopLocal(httpx.AsyncClient)


def serve(pipe: Connection) -> None:
    """Answer until told to stop."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


def count() -> dict[str, int]:
    """Count what this process has now."""
    gc.collect()
    loops = [each for each in gc.get_objects() if isinstance(each, asyncio.AbstractEventLoop)]
    tasks = sum(len(asyncio.all_tasks(loop)) for loop in loops if not loop.is_closed())
    kinds = Counter(map(descriptor_kind, Path("/proc/self/fd").iterdir()))
    counts = (kinds["socket"], kinds["other"], kinds["eventfd"])
    return dict(zip(WHAT, (threading.active_count(), tasks, len(loops), *counts), strict=True))


def descriptor_kind(descriptor: Path) -> str:
    """Tell what a descriptor is."""
    try:
        target = str(descriptor.readlink())
    except FileNotFoundError:  # the one that the folder was read by
        return "gone"
    return "socket" if "socket:" in target else "eventfd" if "[eventfd]" in target else "other"


def main() -> int:
    """Print the counts as a table; return 1 if anything is left."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/"

    async def ask(_: int = 0) -> str:
        async with clients() as client:
            return (await client.get(url)).text

    async def nested() -> str:
        return AsyncExecutor.run_async(ask)

    def concurrently() -> None:
        with ThreadPoolExecutor(CALLERS) as pool:
            assert [each.result() for each in [pool.submit(AsyncExecutor.run_async, ask) for _ in range(CALLERS)]]

    def many() -> None:
        for _ in range(1000):
            AsyncExecutor.run_async(ask)

    def close() -> None:
        AsyncExecutor.close()
        default_runtime().close()

    steps: dict[str, Callable[[], object]] = {
        "before": lambda: None,
        "1 call": lambda: AsyncExecutor.run_async(ask),
        "20 at once": concurrently,
        "100 in batches of 10": lambda: AsyncExecutor.map_async(ask, range(100), concurrency=10),
        "1,000 in turn": many,
        "1 from the loop's own thread": lambda: homeloop.run(nested),
        "closed": close,
    }
    print(f"| after | {' | '.join(WHAT)} |\n|---|{'---|' * len(WHAT)}")
    counts = []
    for name, step in steps.items():
        step()
        counts.append(count())
        print(f"| {name} | {' | '.join(map(str, counts[-1].values()))} |")
    ours.send(None)
    server.join()
    left = any(counts[0][what] != counts[-1][what] for what in WHAT[:-1])
    return int(left or counts[-1][WHAT[-1]] > CALLERS + 1)


if __name__ == "__main__":
    sys.exit(main())
