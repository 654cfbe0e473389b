"""
How many runs a second does a service do, and how long does one take from its request to its result?

Each peer runs the same LangGraph graph, two nodes that wait 10 ms each, behind its HTTP interface, at 1, 8 and 64
clients; each client asks for a run, waits for its end, and asks for the next. Peers run side by side on one
machine, in interleaved rounds, on the same PostgreSQL and Redis, each with a database of its own.

What they promise differs. workflow_service and Aegra keep run, steps and result in PostgreSQL; workflow_service
commits a run before anything works on it, and each step before the next. FastAPI and Celery by hand keep nothing.

Aegra needs Python 3.12 and an environment of its own: `make bench-service` makes one where it can.

Usage: python bench/service.py [--rounds N] [--seconds S] [--aegra PYTHON] [--json FILE]
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from uuid import uuid4

import asyncpg
import httpx
from rounds import versions

HERE = Path(__file__).parent
CLIENTS = (1, 8, 64)
TEXT = "one two three"
ANSWER = "3 words"
KEY = "the bench's own key"
START_BOUND = 240.0  # seconds
Ask = Callable[[httpx.AsyncClient], Awaitable[str]]


@dataclass
class Peer:
    """One service: how a run is asked for, and the processes that answer."""

    name: str
    ask: Ask
    port: int
    ready: str
    commands: list[tuple[list[str], dict[str, str]]]
    prepare: Callable[[httpx.AsyncClient], Awaitable[None]] | None = None
    rates: dict[int, list[float]] = field(default_factory=dict)
    times: dict[int, list[float]] = field(default_factory=dict)
    failed: int = 0


async def ask_ours(client: httpx.AsyncClient) -> str:
    """Submit, wait, take the result."""
    body = {"workflow_name": "two_steps", "input_data": {"text": TEXT}}
    accepted = (await client.post("/api/v1/workflows/execute", json=body)).raise_for_status().json()
    run = (await client.get(f"/api/v1/runs/{accepted['run_id']}/wait?timeout=60")).raise_for_status().json()
    assert run["status"] == "succeeded", run
    result = (await client.get(f"/api/v1/runs/{accepted['run_id']}/result")).raise_for_status().json()
    return str(result["answer"])


async def ask_aegra(client: httpx.AsyncClient) -> str:
    """Make a thread, run and wait."""
    thread = (await client.post("/threads", json={})).raise_for_status().json()["thread_id"]
    body = {"assistant_id": "two_steps", "input": {"text": TEXT}}
    result = (await client.post(f"/threads/{thread}/runs/wait", json=body)).raise_for_status().json()
    return str(result["answer"])


async def prepare_aegra(client: httpx.AsyncClient) -> None:
    """Make the assistant."""
    await client.post("/assistants", json={"graph_id": "two_steps", "if_exists": "do_nothing"})


async def ask_bare(client: httpx.AsyncClient) -> str:
    """Ask, and get the result as the answer."""
    return str((await client.post("/run", json={"text": TEXT})).raise_for_status().json()["answer"])


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def databases(server: str, number: int) -> Iterator[list[str]]:
    """Yield so many databases, and drop them."""
    names = [f"bench_service_{uuid4().hex}" for _ in range(number)]

    async def execute(statements: list[str]) -> None:
        connection = await asyncpg.connect(server)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(execute([f"CREATE DATABASE {name}" for name in names]))
    try:
        yield [f"{server.rpartition('/')[0]}/{name}" for name in names]
    finally:
        asyncio.run(execute([f"DROP DATABASE {name} WITH (FORCE)" for name in names]))


def plugin(folder: Path) -> None:
    """Make the graph a plug-in of the service, as an installed package would."""
    info = folder / "bench_plugin-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-plugin\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[workflow_service.workflows]\ntwo_steps = service_peers:for_workflow_service\n"
    )


def ours(name: str, pool: str, concurrency: int, database: str, broker: str, folder: Path) -> Peer:
    """workflow_service, with one API process and one worker."""
    port = free_port()
    environment = {
        "DATABASE_URL": database,
        "BROKER_URL": broker,
        "WORKFLOW_API_KEYS": json.dumps({"bench": KEY}),
        "WORKFLOW_LOG_LEVEL": "WARNING",
        "PYTHONPATH": f"{folder}:{HERE}",
    }
    command = [sys.executable, "-m", "workflow_service"]
    worker = [*command, "worker", "--pool", pool, "--concurrency", str(concurrency)]
    api = [*command, "api", "--port", str(port)]
    return Peer(name, ask_ours, port, "/health/ready", [(api, environment), (worker, environment)])


def aegra(name: str, python: str, database: str, redis: str | None, folder: Path) -> Peer:
    """Aegra in one process, with its workers in it; with Redis they survive a restart."""
    port = free_port()
    config = folder / "aegra.json"
    config.write_text(
        json.dumps({"dependencies": [str(HERE)], "graphs": {"two_steps": f"{folder}/aegra_graph.py:graph"}})
    )
    (folder / "aegra_graph.py").write_text(
        "from service_peers import two_steps\n\ngraph = two_steps().compile()\n"
    )
    environment = {
        "DATABASE_URL": database,
        "AEGRA_CONFIG": str(config),
        "AUTH_TYPE": "noop",
        "LOG_LEVEL": "WARNING",
        "PYTHONPATH": str(HERE),
        "WORKER_COUNT": "4",
        "N_JOBS_PER_WORKER": "16",
        **({"REDIS_BROKER_ENABLED": "true", "REDIS_URL": redis} if redis else {}),
    }
    serve = [python, "-m", "uvicorn", "aegra_api.main:app", "--port", str(port), "--log-level", "warning"]
    return Peer(name, ask_aegra, port, "/health", [(serve, environment)], prepare_aegra)


def bare(redis: str) -> Peer:
    """FastAPI and Celery's prefork pool by hand."""
    port = free_port()
    environment = {"BROKER_URL": redis, "PYTHONPATH": str(HERE)}
    api = [sys.executable, "-m", "uvicorn", "service_bare:api", "--port", str(port)]
    worker = [sys.executable, "-m", "celery", "--app", "service_bare:tasks", "worker", "--queues", "bare"]
    return Peer(
        "FastAPI + Celery prefork 8 by hand (keeps nothing)",
        ask_bare,
        port,
        "/health",
        [
            ([*api, "--log-level", "warning"], environment),
            ([*worker, "--concurrency", "8", "--loglevel", "WARNING"], environment),
        ],
    )


@contextlib.contextmanager
def running(peers: list[Peer], folder: Path) -> Iterator[None]:
    """Start the processes of all peers, and end them."""
    started = []
    try:
        for number, peer in enumerate(peers):
            for step, (command, environment) in enumerate(peer.commands):
                with (folder / f"{number}-{step}.log").open("wb") as log:
                    process = subprocess.Popen(
                        command, env={**os.environ, **environment}, stdout=log, stderr=log, cwd=folder
                    )
                started.append(process)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.asynccontextmanager
async def connected(peer: Peer, clients: int) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a peer with a connection for each of so many users."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{peer.port}",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=90,
        trust_env=False,
        limits=httpx.Limits(max_connections=clients, max_keepalive_connections=clients),
    ) as client:
        yield client


async def wait_ready(peer: Peer) -> None:
    """Wait until a peer has done a run."""
    deadline = time.monotonic() + START_BOUND
    async with connected(peer, 1) as client:
        while True:
            try:
                (await client.get(peer.ready)).raise_for_status()
                if peer.prepare is not None:
                    await peer.prepare(client)
                assert await peer.ask(client) == ANSWER
            except (httpx.HTTPError, AssertionError, KeyError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)
            else:
                return


async def measure(peer: Peer, clients: int, seconds: float) -> None:
    """Let so many clients ask one run after the other for so long."""
    times = peer.times.setdefault(clients, [])
    done = 0

    async def user(client: httpx.AsyncClient, until: float) -> None:
        nonlocal done
        while (begun := time.perf_counter()) < until:
            try:
                assert await peer.ask(client) == ANSWER
            except Exception:
                peer.failed += 1
                continue
            times.append(time.perf_counter() - begun)
            done += 1

    async with connected(peer, clients) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(user(client, begun + seconds) for _ in range(clients)))
    peer.rates.setdefault(clients, []).append(done / (time.perf_counter() - begun))


async def bench(peers: list[Peer], rounds: int, seconds: float) -> None:
    """Measure all peers in interleaved rounds."""
    for peer in peers:
        await wait_ready(peer)
    for _ in range(rounds):
        for clients in CLIENTS:
            for peer in peers:
                await measure(peer, clients, seconds)


def table(peers: list[Peer]) -> str:
    """Return runs a second, and the median and 95th percentile of a run in ms, at each number of clients."""
    head = " | ".join(f"{clients} client{'s' * (clients > 1)}" for clients in CLIENTS)
    lines = [f"| runs/s (p50, p95 in ms) at | {head} | failed |", "|---" * (len(CLIENTS) + 2) + "|"]
    for peer in peers:
        cells = []
        for clients in CLIENTS:
            times = peer.times[clients]
            p95 = quantiles(times, n=20)[-1] if len(times) > 1 else float("nan")
            cells.append(f"{median(peer.rates[clients]):.1f} ({median(times) * 1000:.0f}, {p95 * 1000:.0f})")
        lines.append(f"| {peer.name} | {' | '.join(cells)} | {peer.failed} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each peer, number of clients and round")
    parser.add_argument("--aegra", default=str(HERE.parent / ".venv-aegra" / "bin" / "python"), metavar="PYTHON")
    parser.add_argument("--json", type=Path, help="file for the raw figures")
    options = parser.parse_args()
    server = os.environ.get("TEST_DATABASE_URL") or "postgresql://postgres@127.0.0.1:5432/postgres"
    redis = (os.environ.get("TEST_REDIS_URL") or "redis://127.0.0.1:6379/0").rpartition("/")[0]
    with databases(server, 4) as (first, second, third, fourth), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plugin(folder)
        peers = [
            ours("workflow_service, worker on asyncio 64", "asyncio", 64, first, f"{redis}/10", folder),
            ours("workflow_service, worker on threads 16", "threads", 16, second, f"{redis}/11", folder),
            bare(f"{redis}/12"),
        ]
        aegra_version = "not installed"
        if Path(options.aegra).exists():
            asked = [options.aegra, "-c", "from importlib.metadata import version; print(version('aegra-api'))"]
            aegra_version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
            name = f"Aegra {aegra_version}"
            peers.insert(2, aegra(f"{name}, Redis", options.aegra, third, f"{redis}/13", folder))
            peers.insert(
                3, aegra(f"{name}, without Redis (runs end with its process)", options.aegra, fourth, None, folder)
            )
        with running(peers, folder):
            try:
                asyncio.run(bench(peers, options.rounds, options.seconds))
            except BaseException:
                for log in sorted(folder.glob("*.log")):
                    print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)
                raise
    print(
        f"{versions('fastapi', 'celery', 'langgraph', 'asyncpg')}, Aegra {aegra_version}; {os.cpu_count()} cores"
    )
    print(table(peers))
    if options.json:
        raw = {peer.name: {"rates": peer.rates, "seconds": peer.times, "failed": peer.failed} for peer in peers}
        options.json.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
