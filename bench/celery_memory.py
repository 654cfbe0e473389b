"""
What does a Celery task weigh that waits?

A worker gets some tasks that sleep, then 2,000 more; what its process has taken in between is divided by their
number. Memory is the unique set size. Linux only. The worker is killed in the end.

Usage: python bench/celery_memory.py
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from struct import calcsize

import psutil
from celery_suite import redis as redis_server
from celery_throughput import INSTALLED, MEASURED, QUEUES, Peer, celery, started
from rounds import versions

FEW, MANY = 100, 2000  # tasks before and between the two looks
BOUND = 120.0  # seconds for all of them to begin
SETTLED = 1.0  # seconds after the last one has begun: its message is acknowledged by then
PEERS = {
    "homeloop asyncio pool": celery("asyncio", FEW + MANY, 0, 0, "async", **INSTALLED, BENCH_PREFETCH="1"),
    "celery gevent": celery("gevent", FEW + MANY, 0, 0, "sync", BENCH_PREFETCH="1"),
    "celery threads": celery("threads", FEW + MANY, 0, 0, "sync", BENCH_PREFETCH="1"),
}


def measure(peer: Peer, folder: Path) -> tuple[float, float]:
    """Return what the worker has with the first tasks, in MB, and what each further one takes, in kB."""
    record = folder / "record"
    record.write_bytes(b"")
    with redis_server(folder) as port:
        environment = {
            **os.environ,
            **peer.environment,
            "BENCH_BROKER": f"redis://127.0.0.1:{port}/0",
            "BENCH_RESULTS": f"redis://127.0.0.1:{port}/1",
            "BENCH_RECORD": str(record),
            "PYTHONPATH": os.pathsep.join((str(QUEUES), os.environ.get("PYTHONPATH", ""))),
        }
        with started(peer.command, environment, folder / "log") as worker:
            sizes = []
            for count, begun in ((FEW, FEW), (MANY, FEW + MANY)):
                send = [sys.executable, f"{peer.queue}.py", "asleep", str(count)]
                subprocess.run(send, cwd=QUEUES, env=environment, check=True)
                deadline = time.monotonic() + BOUND
                while record.stat().st_size < begun * calcsize("dd"):
                    if worker.process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
                    time.sleep(0.1)
                time.sleep(SETTLED)
                sizes.append(psutil.Process(worker.process.pid).memory_full_info().uss)
            worker.process.kill()
    return sizes[0] / 1e6, (sizes[1] - sizes[0]) / 1e3 / MANY


def main() -> None:
    """Measure and print a Markdown table."""
    print(versions(*MEASURED))
    print(f"\n| {MANY} sleeping tasks in one process | MB with the first {FEW} | kB for each further one |")
    print("|---|---|---|")
    for name, peer in PEERS.items():
        with tempfile.TemporaryDirectory() as folder:
            few, each = measure(peer, Path(folder))
        print(f"| {name} | {few:.0f} | {each:.1f} |", flush=True)


if __name__ == "__main__":
    main()
