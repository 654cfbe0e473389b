"""
What does it cost a sync caller to run a trivial coroutine on a loop that is not its own?

Peers run side by side in one process, in interleaved rounds, so that a busy machine slows all of
them. Ratios are to ``run_coroutine_threadsafe(...).result()``, the hand-written way; a ratio is the
median of the rounds' ratios, because what disturbs a whole round disturbs its neighbours, too.

Usage: python bench/calls.py [--rounds N] [--json FILE]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rounds import versions

BASELINE = "run_coroutine_threadsafe"
MEASURED = ("homeloop", "uvloop", "anyio", "asgiref", "fsspec", "synchronicity", "dramatiq")
ROUND = 400  # calls a peer makes before the next one's turn
Call = Callable[[], object]


async def noop() -> None:
    """The work."""


def loop_thread(factory: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    """A loop that runs on a daemon thread: what people write by hand."""
    loop = factory()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def wake_ups() -> dict[str, Call]:
    """What it costs to wake another thread and to be woken by it, and nothing else."""
    ping, pong = allocate_lock(), allocate_lock()
    ping.acquire(), pong.acquire()

    def answer() -> None:
        while True:
            ping.acquire()
            pong.release()

    threading.Thread(target=answer, daemon=True).start()

    def lock_ping_pong() -> None:
        ping.release()
        pong.acquire()

    loop, done = loop_thread(asyncio.new_event_loop), allocate_lock()
    done.acquire()

    def call_soon_threadsafe() -> None:
        loop.call_soon_threadsafe(done.release)
        done.acquire()

    return {
        "wake-ups: locks": lock_ping_pong,
        "wake-ups: call_soon_threadsafe, lock": call_soon_threadsafe,
        **_descriptors(),
    }


def _descriptors() -> dict[str, Call]:
    if not hasattr(os, "eventfd"):
        return {}
    ping, pong = os.eventfd(0), os.eventfd(0)

    def answer() -> None:
        while True:
            os.eventfd_read(ping)
            os.eventfd_write(pong, 1)

    threading.Thread(target=answer, daemon=True).start()

    def descriptor_ping_pong() -> None:
        os.eventfd_write(ping, 1)
        os.eventfd_read(pong)

    return {"wake-ups: descriptors": descriptor_ping_pong}


def bridges() -> dict[str, Call]:
    """homeloop, and every peer that is installed."""
    import homeloop

    loop = loop_thread(asyncio.new_event_loop)
    runtime = homeloop.LoopRuntime(name="bench")
    found: dict[str, Call] = {
        "homeloop": lambda: runtime.run(noop),
        BASELINE: lambda: asyncio.run_coroutine_threadsafe(noop(), loop).result(),
        "asyncio.run": lambda: asyncio.run(noop()),
        **_uvloop(homeloop),
        **_anyio(),
        **_asgiref(),
        **_fsspec(),
        **_synchronicity(),
        **_dramatiq(),
    }
    return found


def _uvloop(homeloop: Any) -> dict[str, Call]:
    try:
        import uvloop
    except ImportError:
        return {}
    loop = loop_thread(uvloop.new_event_loop)
    runtime = homeloop.LoopRuntime(name="bench-uvloop", loop_factory=uvloop.new_event_loop)
    return {
        "homeloop on uvloop": lambda: runtime.run(noop),
        f"{BASELINE} on uvloop": lambda: asyncio.run_coroutine_threadsafe(noop(), loop).result(),
    }


kept: list[object] = []
"""Context managers that would end what they opened if they were collected."""


def _anyio() -> dict[str, Call]:
    try:
        from anyio.from_thread import start_blocking_portal
    except ImportError:
        return {}
    kept.append(opening := start_blocking_portal())
    portal = opening.__enter__()
    return {"anyio portal, kept": lambda: portal.call(noop)}


def _asgiref() -> dict[str, Call]:
    try:
        from asgiref.sync import async_to_sync
    except ImportError:
        return {}
    return {"asgiref async_to_sync": async_to_sync(noop)}


def _fsspec() -> dict[str, Call]:
    try:
        from fsspec.asyn import get_loop, sync
    except ImportError:
        return {}
    return {"fsspec sync": lambda: sync(get_loop(), noop)}


def _synchronicity() -> dict[str, Call]:
    try:
        from synchronicity import Synchronizer
    except ImportError:
        return {}
    return {"synchronicity": Synchronizer().create_blocking(noop, "blocking_noop", __name__)}


def _dramatiq() -> dict[str, Call]:
    try:
        from dramatiq.asyncio import EventLoopThread
    except ImportError:
        return {}
    import logging

    thread = EventLoopThread(logging.getLogger("bench"))
    thread.start()
    return {"dramatiq loop thread": lambda: thread.run_coroutine(noop())}


def one_caller(call: Call, count: int = ROUND) -> list[float]:
    """Seconds of each of ``count`` calls."""
    durations = []
    clock = time.perf_counter
    for _ in range(count):
        before = clock()
        call()
        durations.append(clock() - before)
    return durations


def eight_callers(call: Call) -> list[float]:
    """Seconds per call, as the eight threads together see it."""
    barrier = threading.Barrier(9)

    def caller() -> None:
        barrier.wait()
        for _ in range(ROUND // 4):
            call()

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    before = time.perf_counter()
    for thread in threads:
        thread.join()
    return [(time.perf_counter() - before) / (8 * (ROUND // 4))]


def inside_a_loop(call: Call) -> list[float]:
    """As one caller, on a thread whose own loop is running; raises for bridges that refuse that."""

    async def main() -> list[float]:
        return one_caller(call)

    return asyncio.run(main())


MODES = {"1 caller": one_caller, "8 callers": eight_callers, "1 caller inside a loop": inside_a_loop}


Row = tuple[float, float, float]
"""A peer's median and 99th percentile in microseconds, and its ratio to the baseline."""


def measure(rounds: int) -> dict[str, dict[str, Row]]:
    """The rows by mode and peer."""
    calls = {**wake_ups(), **bridges()}
    table: dict[str, dict[str, Row]] = {}
    for mode, run in MODES.items():
        peers = calls if mode == "1 caller" else {k: v for k, v in calls.items() if not k.startswith("wake-ups")}
        collected: dict[str, list[list[float]]] = {name: [] for name in peers}
        for _ in range(rounds):
            for name, call in list(peers.items()):
                try:
                    collected[name].append(run(call))
                except RuntimeError:  # it refuses callers of this kind
                    del peers[name], collected[name]
        base = [statistics.median(durations) for durations in collected[BASELINE]]
        table[mode] = {name: _row(durations, base) for name, durations in collected.items()}
    return table


def _row(rounds: list[list[float]], base: list[float]) -> Row:
    every = sorted(duration for durations in rounds for duration in durations)
    ratios = [statistics.median(durations) / other for durations, other in zip(rounds, base, strict=True)]
    return statistics.median(every) * 1e6, every[int(len(every) * 0.99)] * 1e6, statistics.median(ratios)


def show(title: str, table: dict[str, dict[str, Row]]) -> None:
    """Print the modes of one pinning as Markdown tables."""
    for mode, rows in table.items():
        print(f"\n### {title}, {mode}\n\n| | p50 µs | p99 µs | ratio |\n|---|---|---|---|")
        for name, (median, tail, ratio) in sorted(rows.items(), key=lambda item: item[1][2]):
            print(f"| {name} | {median:.1f} | {tail:.1f} | {ratio:.2f} |")


def main() -> None:
    """Measure each pinning in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="also write the figures there")
    parser.add_argument("--cpus", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpus:
        os.sched_setaffinity(0, set(map(int, options.cpus.split(","))))
        json.dump(measure(options.rounds), sys.stdout)
        sys.stdout.flush()
        os._exit(0)  # peers' threads would keep us
    cpus = sorted(os.sched_getaffinity(0))
    pinnings = {"one CPU": cpus[:1], "two CPUs": cpus[:2]} if len(cpus) > 1 else {"one CPU": cpus}
    print(versions(*MEASURED))
    results = {}
    for title, chosen in pinnings.items():
        argv = [sys.executable, __file__, "--rounds", str(options.rounds), "--cpus", ",".join(map(str, chosen))]
        results[title] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
        show(title, results[title])
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
