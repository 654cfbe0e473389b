"""
How many tasks a second does one worker process do, with results, over Redis?

Celery's pools, the asyncio pool of homeloop, and other queues beside them, each worker in a process of its own
(prefork: and its children) against one Redis that is the benchmark's own. Two pieces of work: 50 ms of I/O, and
nothing. The queue is full before the worker starts; what is measured lies between its first fifth and the moment
when every result is there. Repetitions are interleaved, ratios are those of the same repetition.

The module is not called ``celery``, as it would hide Celery from whatever runs in its folder.

Usage: python bench/celery_throughput.py [--repeat N] [--only NAME ...] [--work io|noop] [--scale X] [--json FILE]
"""

import argparse
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from celery_suite import redis as redis_server
from redis import Redis
from rounds import versions

QUEUES = Path(__file__).parent / "queues"
BOUND = 25.0  # seconds for one worker's run
STOP_BOUND = 10.0  # seconds for its end
WARM = 0.2  # the part of the tasks that is not measured
POLL = 0.02  # seconds
OURS = {"asyncio": "homeloop.adapters.celery.pool:TaskPool", "aio": "celery_aio_pool.pool:AsyncIOPool"}
BASE = "celery threads 100 + asyncio.run"
MEASURED = ("homeloop", "celery", "kombu", "redis", "hiredis", "gevent")
MEASURED += ("celery-aio-pool", "dramatiq", "taskiq", "taskiq-redis", "saq", "arq")
WORK = {"io": "50 ms of I/O", "noop": "nothing"}
NOT_THE_WORKERS = ("info", "dbsize", "zcard")  # commands of this program


@dataclass(frozen=True)
class Peer:
    """
    One worker: how it is started, how tasks are sent to it.

    Attributes:
        counts: How many tasks of each work, for a run of some seconds.
        open: How many of so many have no result yet.
    """

    queue: str
    command: tuple[str, ...]
    counts: dict[str, int]
    environment: dict[str, str] = field(default_factory=dict)
    open: Callable[[Redis, Redis, int], int] = lambda _, results, count: count - int(results.dbsize())


def celery(pool: str, places: int, io: int, noop: int, form: str, **environment: str) -> Peer:
    """Return a worker of Celery's."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    name = "custom" if pool in OURS else pool
    command = ("celery", "--app", "celery_queue", "worker", "--pool", name, "--concurrency", str(places), *quiet)
    chosen = {"BENCH_FORM": form, **environment}
    if pool in OURS:
        chosen["CELERY_CUSTOM_WORKER_POOL"] = OURS[pool]
    return Peer("celery_queue", command, {"io": io, "noop": noop}, chosen)


def _in_queue(key: str) -> Callable[[Redis, Redis, int], int]:
    return lambda broker, _, __: int(broker.zcard(key))


INSTALLED = {"BENCH_INSTALL": "1"}
PEERS = {
    "celery prefork 2 + asyncio.run": celery("prefork", 2, 150, 3000, "asyncio.run"),
    "celery prefork 10 + asyncio.run": celery("prefork", 10, 800, 3000, "asyncio.run"),
    BASE: celery("threads", 100, 2000, 2000, "asyncio.run"),
    "celery threads 100 + homeloop": celery("threads", 100, 2000, 2000, "async", **INSTALLED),
    "celery gevent 100, sync": celery("gevent", 100, 1500, 1500, "sync"),
    "celery-aio-pool 100": celery("aio", 100, 100, 1500, "async"),
    "homeloop asyncio pool 100": celery("asyncio", 100, 6000, 6000, "async", **INSTALLED),
    "homeloop asyncio pool 1000": celery("asyncio", 1000, 6000, 6000, "async", **INSTALLED, BENCH_PREFETCH="1"),
    "dramatiq, 400 threads": Peer(
        "dramatiq_queue",
        ("dramatiq", "dramatiq_queue", "--processes", "1", "--threads", "400"),
        {"io": 6000, "noop": 8000},
    ),
    "taskiq (no acknowledgement)": Peer(
        "taskiq_queue",
        ("taskiq", "worker", "taskiq_queue:broker", "--workers", "1", "--max-async-tasks", "1000"),
        {"io": 6000, "noop": 8000},
    ),
    "saq 1000": Peer(
        "saq_queue",
        ("saq", "saq_queue.settings"),
        {"io": 6000, "noop": 6000},
        open=_in_queue("saq:default:incomplete"),
    ),
    "arq 1000": Peer(
        "arq_queue", ("arq", "arq_queue.WorkerSettings"), {"io": 6000, "noop": 6000}, open=_in_queue("arq:queue")
    ),
}


@dataclass(frozen=True)
class Run:
    """What one worker did in the measured part."""

    rate: float  # tasks per second
    most: int  # in flight
    mean: float
    commands: float  # Redis commands per task
    cpu: float  # ms of the worker's processor time per task
    memory: float  # MB of resident memory


class Worker:
    """A worker's processes, seen from outside."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._known = psutil.Process(process.pid)

    def tree(self) -> list[Any]:
        return [self._known, *self._known.children(recursive=True)]

    def cpu(self) -> float:
        times = [each.cpu_times() for each in self.tree()]
        return sum(each.user + each.system for each in times)

    def memory(self) -> float:
        return sum(each.memory_info().rss for each in self.tree()) / 1e6


@contextmanager
def started(command: tuple[str, ...], environment: dict[str, str], log: Path) -> Iterator[Worker]:
    """Start a worker; end all of it afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            cwd=QUEUES,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Worker(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_BOUND)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def commands_of(broker: Redis) -> int:
    """Return how many commands the server has done, without ours."""
    stats: dict[str, Any] = broker.info("commandstats")  # type: ignore[assignment]
    return sum(each["calls"] for name, each in stats.items() if name[len("cmdstat_") :] not in NOT_THE_WORKERS)


def in_flight(record: bytes, after: float) -> tuple[int, float]:
    """Return the most tasks at a time and their mean number, from the recorded times."""
    spans = [span for span in struct.iter_unpack("dd", record) if span[1] >= after]
    now = most = 0
    for _, step in sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans]):
        now += step
        most = max(most, now)
    first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    return most, sum(end - begin for begin, end in spans) / (last - first)


def measure(peer: Peer, work: str, folder: Path, scale: float = 1.0) -> Run:
    """Send the tasks, start the worker, watch."""
    count, record = int(peer.counts[work] * scale), folder / "record"
    record.unlink(missing_ok=True)
    record.touch()
    with redis_server(folder) as port:
        broker, results = (Redis(port=port, db=db) for db in (0, 1))
        environment = {
            **os.environ,
            **peer.environment,
            "BENCH_BROKER": f"redis://127.0.0.1:{port}/0",
            "BENCH_RESULTS": f"redis://127.0.0.1:{port}/1",
            "BENCH_RECORD": str(record),
            "PYTHONPATH": os.pathsep.join((str(QUEUES), os.environ.get("PYTHONPATH", ""))),
        }
        send = [sys.executable, f"{peer.queue}.py", work, str(count)]
        subprocess.run(send, cwd=QUEUES, env=environment, check=True)
        with started(peer.command, environment, folder / "log") as worker:
            deadline = time.monotonic() + BOUND

            def wait_until(condition: Callable[[], bool]) -> float:
                while not condition():
                    if worker.process.poll() is not None or time.monotonic() > deadline:
                        log = (folder / "log").read_text(errors="replace")
                        raise RuntimeError(f"{len(record.read_bytes()) // 16} of {count} tasks; {log[-2000:]}")
                    time.sleep(POLL)
                return time.monotonic()

            size = struct.calcsize("dd")
            begin = wait_until(lambda: record.stat().st_size >= size * count * WARM)
            before = record.stat().st_size // size, worker.cpu(), commands_of(broker)
            end = wait_until(lambda: peer.open(broker, results, count) <= 0)
            done = count - before[0]
            cpu, commands, memory = worker.cpu() - before[1], commands_of(broker) - before[2], worker.memory()
        broker.close()
        results.close()
    most, mean = in_flight(record.read_bytes(), begin)
    return Run(done / (end - begin), most, mean, commands / done, 1000 * cpu / done, memory)


def rows(names: list[str], works: list[str], repeat: int, scale: float) -> dict[str, dict[str, list[Run]]]:
    """Measure everybody who is here, so many times, one after the other."""
    found: dict[str, dict[str, list[Run]]] = {work: {name: [] for name in names} for work in works}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            for name in names:
                for work in works:
                    try:
                        run = measure(PEERS[name], work, Path(folder), scale)
                    except (RuntimeError, subprocess.CalledProcessError) as error:
                        print(f"- {name}, {WORK[work]}: {error}", file=sys.stderr, flush=True)
                        continue
                    print(f"- {name}, {WORK[work]}: {run.rate:.0f}/s", file=sys.stderr, flush=True)
                    found[work][name].append(run)
    return found


def table(by_name: dict[str, list[Run]]) -> Iterator[str]:
    """Yield the lines of one work's table."""
    yield "| | tasks/s | spread | to threads 100 | in flight, most / mean | Redis commands | CPU ms | RSS MB |"
    yield "|---" * 8 + "|"
    base = [run.rate for run in by_name.get(BASE, [])]
    for name, runs in by_name.items():
        if not runs:
            yield f"| {name} | does not run |" + " |" * 6
            continue
        rates = [run.rate for run in runs]
        ratio = statistics.median(mine / his for mine, his in zip(rates, base, strict=False)) if base else None
        middle = {
            name: statistics.median(getattr(run, name) for run in runs)
            for name in ("most", "mean", "commands", "cpu", "memory")
        }
        yield (
            f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f}-{max(rates):.0f} | "
            f"{'' if ratio is None else f'{ratio:.2f}'} | {middle['most']:.0f} / {middle['mean']:.0f} | "
            f"{middle['commands']:.1f} | {middle['cpu']:.2f} | {middle['memory']:.0f} |"
        )


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="peers whose name has one of these in it")
    parser.add_argument("--work", choices=sorted(WORK))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of tasks, for slow machines")
    parser.add_argument("--json", help="also write the figures there")
    options = parser.parse_args()
    names = [name for name in PEERS if not options.only or any(each in name for each in options.only)]
    works = [options.work] if options.work else list(WORK)
    print(versions(*MEASURED))
    found = rows(names, works, options.repeat, options.scale)
    for work, by_name in found.items():
        print(f"\n### {WORK[work]}\n")
        print("\n".join(table(by_name)))
    if options.json:
        plain = {
            work: {name: [vars(run) for run in runs] for name, runs in by.items()} for work, by in found.items()
        }
        Path(options.json).write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
