"""
Run Celery workers at load for a long time, one pool after the other, and look for what should not be.

Tasks of all kinds (database, HTTP, sleeps, retries, failures, limits, revocations, sync ones) are kept in flight;
each must end as it should. The worker's log is searched for what asyncio says when loops are mixed up and for
tracebacks that nobody wanted; memory, descriptors and connections are shown after the first tenth and at the end.

Usage: python packages/homeloop/tests/adapters/soak [--seconds S] [--pools NAME ...]
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from celery import _state

APPS = Path(__file__).parents[1] / "apps"
POOLS = {"prefork": 4, "threads": 40, "solo": 1, "gevent": 40, "eventlet": 40, "asyncio": 400}  # tasks at a time
SHARES = {
    "query": 40,
    "fetch": 20,
    "nap": 20,
    "sync": 8,
    "retried": 4,
    "fails": 4,
    "limited": 1,
    "cut": 1,
    "held": 1,
}
ENDS = {"fails": "FAILURE", "cut": "FAILURE", "held": "REVOKED"}  # the others: SUCCESS, with their number
LOOP_ERRORS = re.compile(
    "Event loop is closed|different loop|was never awaited|Task was destroyed|never retrieved|WrongLoopError|"
    "another loop is running|cannot be called from a running event loop|another operation is in progress|"
    "non-thread-safe operation|Unrecoverable error|BlockingSwitchOutError"
)
WANTED = re.compile(
    "OnPurposeError|SoftTimeLimitExceeded|TimeLimitExceeded|Terminated|TaskRevokedError|"
    # Celery's own, on gevent: a result that the collector frees fails to unsubscribe, which is "ignored".
    r"celery/result\.py\", line \d+, in __del__"
)
START_BOUND = 60.0  # seconds
END_BOUND = 60.0  # seconds for what is in flight at the end, and for the worker's end
PAUSE = 0.05  # seconds between two looks


@dataclass
class Sample:
    """What a worker takes."""

    memory: float  # MB
    descriptors: int
    threads: int
    database: int  # connections
    http: int  # connections


class Worker:
    """A worker in processes of its own, and its tasks as their sender sees them."""

    def __init__(self, pool: str, folder: Path, http_port: int) -> None:
        self.pool, self.places, self.log = pool, POOLS[pool], folder / f"{pool}.log"
        self.prefix = f"soak-{uuid.uuid4().hex[:8]}:"
        self._port = http_port
        dsn = os.environ.get("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
        separator = "&" if "?" in dsn else "?"
        self.dsn = f"{dsn}{separator}application_name={quote(self.prefix)}"
        os.environ.update(
            SOAK_REDIS=os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15"),
            SOAK_PREFIX=self.prefix,
            SOAK_DSN=self.dsn,
            SOAK_HTTP=f"http://127.0.0.1:{http_port}",
            CELERY_CUSTOM_WORKER_POOL="homeloop.adapters.celery.pool:TaskPool",
        )
        sys.modules.pop("soak_tasks", None)
        before = set(_state._on_app_finalizers)  # Celery keeps the tasks for every app that is made later
        self.tasks: Any = importlib.import_module("soak_tasks")
        self.tasks.app.finalize()
        _state._on_app_finalizers = before
        name = "custom" if pool == "asyncio" else pool
        options = ("--concurrency", str(self.places), "--loglevel", "INFO", "--without-gossip", "--without-mingle")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "--app", "soak_tasks", "worker", "--pool", name, *options],
                env={**os.environ, "PYTHONPATH": str(APPS)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_BOUND
        while " ready." not in self.log.read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.pool} does not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(PAUSE)

    def sample(self) -> Sample:
        here = psutil.Process(self.process.pid)
        tree = [here, *here.children(recursive=True)]
        connections = [each for process in tree for each in process.net_connections("tcp") if each.raddr]
        ports = Counter(each.raddr.port for each in connections)
        return Sample(
            sum(each.memory_info().rss for each in tree) / 1e6,
            sum(each.num_fds() for each in tree),
            sum(each.num_threads() for each in tree),
            ports[5432],
            ports[self._port],
        )

    def stop(self) -> int | None:
        """Stop it warmly; return how it ended, None if it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_BOUND)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def clear(self) -> None:
        """Leave nothing on the server."""
        client = self.tasks.app.backend.client
        for key in client.scan_iter(f"{self.prefix}*", count=1000):
            client.delete(key)
        self.tasks.app.close()


class Load:
    """Keeps tasks in flight and hears how each has ended."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._flying: dict[str, tuple[str, int, float]] = {}  # kind, number, when
        self._revoked: set[str] = set()
        self._random = random.Random(0)
        self._numbers = iter(range(1 << 31))
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []

    def send(self) -> None:
        """Fill up to twice as many as there are places."""
        kinds = {kind: share for kind, share in SHARES.items() if kind != "held" or self._worker.pool != "solo"}
        for _ in range(2 * self._worker.places + 2 - len(self._flying)):
            [kind] = self._random.choices([*kinds], [*kinds.values()])
            number = next(self._numbers)
            sent = getattr(self._worker.tasks, kind).apply_async((number,))
            self._flying[sent.id] = kind, number, time.monotonic()

    def revoke(self) -> None:
        """Revoke what has been held for a while."""
        due = time.monotonic() - 2
        held = [each for each, (kind, _, when) in self._flying.items() if kind == "held" and when < due]
        if new := [each for each in held if each not in self._revoked]:
            self._revoked.update(new)
            self._worker.tasks.app.control.revoke(new, terminate=True)

    def look(self) -> None:
        """Take what has ended."""
        backend, ids = self._worker.tasks.app.backend, [*self._flying]
        if not ids:
            return
        keys = [backend.get_key_for_task(each) for each in ids]
        for each, meta in zip(ids, backend.mget(keys), strict=True):
            if meta and (state := json.loads(meta))["status"] in ("SUCCESS", "FAILURE", "REVOKED"):
                kind, number, _ = self._flying.pop(each)
                self.ended[kind] += 1
                expected = ENDS.get(kind, "SUCCESS")
                if state["status"] != expected or (expected == "SUCCESS" and state["result"] != number):
                    self.wrong.append(f"{kind}: {state['status']} {str(state['result'])[:300]}")
                backend.client.delete(backend.get_key_for_task(each))

    def run(self, seconds: float) -> None:
        """Keep them flying for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._worker.process.poll() is None:
            self.send()
            time.sleep(PAUSE)
            self.revoke()
            self.look()

    def land(self) -> None:
        """Wait for the rest."""
        until = time.monotonic() + END_BOUND
        while self._flying and time.monotonic() < until and self._worker.process.poll() is None:
            time.sleep(PAUSE)
            self.revoke()
            self.look()
        for each, (kind, _, _) in self._flying.items():
            state = self._worker.tasks.app.AsyncResult(each).state
            self.wrong.append(f"{kind}: {state} after {END_BOUND:.0f} s; {each}")


def unwanted(log: str) -> tuple[list[str], list[str]]:
    """Return the records of a log with loop errors, and those with tracebacks that nobody wanted."""
    # What is written to stderr, by gevent for one, comes line by line, each as a warning of its own.
    own_line = r"\n\[[^\]]* WARNING/MainProcess\]"
    whole = re.sub(rf"({own_line} Traceback \(most[^\n]*){own_line}", r"\1", log)
    records = re.split(r"\n(?=\[\d{4}-\d\d-\d\d )", whole)
    return (
        [record for record in records if LOOP_ERRORS.search(record)],
        [record for record in records if "Traceback (most" in record and not WANTED.search(record)],
    )


@contextlib.contextmanager
def http_server() -> Iterator[int]:
    """Answer each path with its name, in a process of its own; ``/never`` never."""
    program = (
        "import asyncio\n"
        "async def answer(reader, writer):\n"
        "    try:\n"
        "        while head := await reader.readuntil(b'\\r\\n\\r\\n'):\n"
        "            path = head.split(b' ')[1][1:]\n"
        "            await asyncio.sleep(600 if path == b'never' else 0.01)\n"
        "            writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(path), path))\n"
        "    except (asyncio.IncompleteReadError, ConnectionError):\n"
        "        writer.close()\n"
        "async def main():\n"
        "    server = await asyncio.start_server(answer, '127.0.0.1', 0, backlog=1000)\n"
        "    print(server.sockets[0].getsockname()[1], flush=True)\n"
        "    await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


def soak(pool: str, seconds: float, folder: Path) -> bool:
    """Run one pool; print what there was; tell whether all was well."""
    with http_server() as port:
        worker = Worker(pool, folder, port)
        try:
            worker.wait_ready()
            load = Load(worker)
            load.run(seconds / 10)
            first = worker.sample()
            load.run(seconds * 9 / 10)
            last = worker.sample()
            load.land()
        finally:
            code = worker.stop()
        worker.clear()
    loops, traces = unwanted(worker.log.read_text(errors="replace"))
    done = ", ".join(f"{load.ended[kind]} {kind}" for kind in SHARES if load.ended[kind])
    counts = load.ended.total(), len(load.wrong), len(loops), len(traces), code
    changes = (f"{vars(first)[name]:.0f} → {vars(last)[name]:.0f}" for name in vars(first))
    cells = f"{pool} {worker.places}", f"{seconds:.0f}", *map(str, counts), *changes, done
    print(f"| {' | '.join(cells)} |", flush=True)
    for each in [*Counter(load.wrong).most_common(5), *loops[:5], *traces[:5]]:
        print(each, file=sys.stderr, flush=True)
    return not load.wrong and not loops and not traces and code == 0


def main() -> int:
    """Run the pools; return 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for each pool")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS), metavar="NAME")
    options = parser.parse_args()
    sys.path.insert(0, str(APPS))
    head = "pool, places | seconds | tasks | wrong ends | loop errors | tracebacks | exit | MB | descriptors"
    print(f"| {head} | threads | database connections | HTTP connections | of which |")
    print("|---" * 13 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        well = [soak(pool, options.seconds, Path(folder)) for pool in options.pools]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
