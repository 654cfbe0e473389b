"""
What does a sync endpoint, or a model's predict, cost that asks a service in async code, at 1, 20 and 100 clients?

Each peer is a uvicorn process of its own, with FastAPI or MLflow's scoring server; they are asked by turns, in
interleaved rounds. The service answers after 10 ms. Ratios are to the client per call of the documents that
started homeloop, and to the loop thread that people write by hand. "CPU ms" is what the server's process used for
each request that went well, httpx's own part included: the figure that other work on the machine changes least.

Usage: python bench/serving.py [--rounds N] [--seconds S] [--json FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
from rounds import versions

HOSTS = Path(__file__).parent / "hosts"
PER_CALL = "client per call, asyncio.run"
BY_HAND = "loop thread and client by hand"
WAYS = (
    PER_CALL,
    "client kept, asyncio.run",
    "nest_asyncio, in an async endpoint",
    "asgiref async_to_sync, client per call",
    "anyio from_thread, the server's loop",
    "anyio portal, kept",
    BY_HAND,
    "homeloop AsyncExecutor",
)
MODELS = tuple(
    way for way in WAYS if not way.startswith(("nest_asyncio", "anyio from_thread"))
)  # predict has no loop
DELAY = 0.01  # seconds
PATIENCE = 10.0  # seconds after a round in which an answer still counts
SAVE = """
import sys
import mlflow.pyfunc
mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], pip_requirements=[])
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = b'{"inputs": [1]}'
QUESTION = (
    b"POST /invocations HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
)


def service(pipe: Connection) -> None:
    """Answer each request after the delay, until told to stop."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(DELAY)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


@contextmanager
def running_service() -> Iterator[str]:
    """Run the service in a process of its own; yield its URL."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=service, args=(theirs,))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/"
    finally:
        ours.send(None)
        process.join()


@dataclass
class Host:
    """A server's port and process."""

    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Return the seconds of CPU time it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def host(app: str, way: str, url: str, log: Path, **environment: str) -> Iterator[Host]:
    """Run an application under uvicorn."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listening, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, HOSTS, str(listening.fileno()), app],
            env={**os.environ, "PYTHONPATH": str(HOSTS), "WAY": way, "SERVICE": url, **environment},
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=output,
        )
        try:
            yield Host(listening.getsockname()[1], psutil.Process(process.pid))
        finally:
            process.kill()
            process.wait()


@dataclass
class Measured:
    """What was measured of a peer: requests a second that went well, by round; times and CPU time, in seconds."""

    rates: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cpu: float = 0.0
    failed: int = 0


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Ask once; tell whether it went well."""
    writer.write(QUESTION % (len(BODY), BODY))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(next(lengths)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return head.startswith(b"HTTP/1.1 200")


async def one_client(port: int, until: float, measured: Measured) -> int:
    """Ask over a connection, after a failure over a new one, until the time is over; return what went well."""
    done, writer = 0, None
    while (begin := time.perf_counter()) < until:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(until - begin + PATIENCE):
                answered = await ask(reader, writer)
        except TimeoutError:  # the peer hangs
            answered = False
        if answered:
            done += 1
            measured.times.append(time.perf_counter() - begin)
        else:
            measured.failed += 1
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    return done


async def one_round(peer: Host, clients: int, seconds: float, measured: Measured) -> None:
    """Let so many clients ask for so long."""
    begin, before = time.perf_counter(), peer.cpu()
    done = await asyncio.gather(*(one_client(peer.port, begin + seconds, measured) for _ in range(clients)))
    measured.rates.append(sum(done) / (time.perf_counter() - begin))
    measured.cpu += peer.cpu() - before


def measure(hosts: dict[str, Host], clients: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return what was measured of each peer, at so many clients."""
    peers = {way: Measured() for way in hosts}
    for each in (
        None,
        *range(rounds),
    ):  # the first one starts servers, threads and clients, and counts for nothing
        for way, one in hosts.items():
            asyncio.run(one_round(one, clients, seconds, Measured() if each is None else peers[way]))

    def ratio(way: str, other: str) -> float:
        pairs = zip(peers[way].rates, peers[other].rates, strict=True)
        return statistics.median(ours / theirs if theirs else float("inf") for ours, theirs in pairs)

    return {
        way: {
            "rate": statistics.median(one.rates),
            "to_per_call": ratio(way, PER_CALL),
            "to_hand": ratio(way, BY_HAND),
            "p50_ms": 1000 * statistics.median(one.times or [float("nan")]),
            "cpu_ms": 1000 * one.cpu / max(1, len(one.times)),
            "failed": one.failed / max(1, one.failed + len(one.times)),
        }
        for way, one in peers.items()
    }


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n\n| | requests/s | to client per call | to by hand | p50 ms | CPU ms | failed |")
    print("|---|---|---|---|---|---|---|")
    for way, row in sorted(table.items(), key=lambda item: item[1]["rate"]):
        ratios = f"{row['to_per_call']:.1f} | {row['to_hand']:.2f}"
        times = f"{row['p50_ms']:.0f} | {row['cpu_ms']:.1f}"
        print(f"| {way} | {row['rate']:.0f} | {ratios} | {times} | {row['failed']:.0%} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each peer in each round")
    parser.add_argument("--json", help="also write the figures there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the servers would outlast it
    print(
        versions("homeloop", "fastapi", "uvicorn", "mlflow-skinny", "httpx", "anyio", "asgiref", "nest-asyncio2")
    )
    tables: dict[str, dict[str, dict[str, float]]] = {}

    def add(title: str, hosts: dict[str, Host], clients: int) -> None:
        tables[title] = measure(hosts, clients, options.rounds, options.seconds)
        show(title, tables[title])

    with running_service() as url, tempfile.TemporaryDirectory() as folder:
        with ExitStack() as running:
            log = Path(folder, "log")
            hosts = {way: running.enter_context(host("fastapi_host:app", way, url, log)) for way in WAYS}
            for clients in (1, 20, 100):
                add(f"FastAPI, {clients} client{'s' * (clients > 1)}", hosts, clients)
        model = str(Path(folder, "model"))
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet", "PYTHONPATH": str(HOSTS)}
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SAVE, model, HOSTS / "mlflow_host.py"],
            env={**os.environ, **quiet, "WAY": PER_CALL, "SERVICE": url},
            check=True,
        )
        app = "mlflow.pyfunc.scoring_server.app:app"
        with ExitStack() as running:
            environment = {**quiet, "__pyfunc_model_path__": model}
            hosts = {way: running.enter_context(host(app, way, url, log, **environment)) for way in MODELS}
            add("MLflow's scoring server, 20 clients", hosts, 20)
    if options.json:
        Path(options.json).write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
