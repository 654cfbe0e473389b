"""
What does it cost to watch 20 loops with 10,000 tasks?

Each peer watches the same program in a process of its own, for one interval of 30 s, round by round: asleep, where
all tasks wait and what is used is the watch's alone; and awake, where each task wakes up ten times in that time.
The figure is the share of one core that the process uses.

Usage: python bench/health.py [--rounds N] [--seconds N] [--json FILE]
"""

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from rounds import versions

LOOPS, TASKS = 20, 10_000
AWAKE = {"asleep": 0, "awake": 10}  # how often a task wakes up while it is watched
ASKED = 0.5  # seconds between two questions to a loop, of those who ask
NOBODY, OURS = "nobody", "homeloop"


def watch_not(_: list[asyncio.AbstractEventLoop], __: float) -> None:
    """Nobody watches."""


def watch_with_homeloop(loops: list[asyncio.AbstractEventLoop], seconds: float) -> None:
    """Lag, load, tasks, blocked loops and the interpreter's lock; one assessment while it is measured."""
    import homeloop

    monitor = homeloop.HealthMonitor(thresholds=homeloop.HealthThresholds(tasks=10**6, blocked=2 * ASKED))
    for loop in loops:
        monitor.watch_loop(loop)
    monitor.start(interval=seconds)


def watch_often_with_homeloop(loops: list[asyncio.AbstractEventLoop], _: float) -> None:
    """The same, assessed every second."""
    watch_with_homeloop(loops, 1.0)


def watch_with_aiodebug(loops: list[asyncio.AbstractEventLoop], _: float) -> None:
    """Its lag monitor and its hang inspection, of each loop: no tasks, no load; as often as homeloop asks."""
    from aiodebug import hang_inspection, monitor_loop_lag

    class Statsd:
        def timing(self, metric: str, value: float) -> None:
            """Drop it."""

    folder = tempfile.mkdtemp()
    for loop in loops:
        loop.call_soon_threadsafe(monitor_loop_lag.enable, Statsd(), ASKED, loop)
        loop.call_soon_threadsafe(hang_inspection.start, folder, 2 * ASKED, loop)


def watch_with_debug_mode(loops: list[asyncio.AbstractEventLoop], _: float) -> None:
    """Asyncio's own debug mode, which tells of slow callbacks afterwards."""
    for loop in loops:
        loop.call_soon_threadsafe(loop.set_debug, True)


PEERS: dict[str, Callable[[list[asyncio.AbstractEventLoop], float], None]] = {
    NOBODY: watch_not,
    OURS: watch_with_homeloop,
    "homeloop, every second": watch_often_with_homeloop,
    "aiodebug": watch_with_aiodebug,
    "asyncio debug mode": watch_with_debug_mode,
}


async def task(pause: float) -> None:
    """Wake up now and then."""
    for _ in itertools.repeat(None):
        await asyncio.sleep(pause)


def open_loops(pause: float) -> list[asyncio.AbstractEventLoop]:
    """Run the loops, each on a thread of its own, with its share of the tasks, which have begun."""
    loops = [asyncio.new_event_loop() for _ in range(LOOPS)]
    begun = threading.Barrier(LOOPS + 1)

    def serve(loop: asyncio.AbstractEventLoop, number: int) -> None:
        kept = [loop.create_task(task(pause)) for _ in range(TASKS // LOOPS)]
        # Not all of them at the same time, when they wake up.
        loop.call_later(pause * number / LOOPS if pause < 60 else 0, begun.wait)
        loop.run_forever()
        del kept

    for number, loop in enumerate(loops):
        threading.Thread(target=serve, args=(loop, number), daemon=True).start()
    begun.wait()
    return loops


def measure(peer: str, times: int, seconds: float) -> None:
    """Print the CPU seconds a second that this process uses while a peer watches it."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of aiodebug
    loops = open_loops(seconds / times if times else 3600.0)
    PEERS[peer](loops, seconds)
    time.sleep(1.0)  # the first look is over: what is measured is one interval, with its end
    cpu, begin = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    print((time.process_time() - cpu) / (time.perf_counter() - begin))


def share(peer: str, times: int, seconds: float) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--peer", peer, "--times", str(times), "--seconds", str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 120)
    return float(ended.stdout)


def main() -> None:
    """Print a table in Markdown for each state of the tasks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer")
    parser.add_argument("--times", type=int, default=0)
    options = parser.parse_args()
    if options.peer is not None:
        measure(options.peer, options.times, options.seconds)
        return
    print(versions("homeloop", "aiodebug"))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for state, times in AWAKE.items():
        rounds = [{peer: share(peer, times, options.seconds) for peer in PEERS} for _ in range(options.rounds)]
        print(
            f"\n### {state}\n\n| | share of a core, % | of that, the watch, % | to homeloop's |\n|---|---|---|---|"
        )
        found[state] = {}
        for peer in PEERS:
            used = statistics.median(each[peer] for each in rounds)
            watch = statistics.median(each[peer] - each[NOBODY] for each in rounds)
            ratio = statistics.median((each[peer] - each[NOBODY]) / (each[OURS] - each[NOBODY]) for each in rounds)
            found[state][peer] = {"used": used, "watch": watch, "ratio": ratio}
            print(f"| {peer} | {100 * used:.2f} | {100 * watch:.2f} | {ratio:.2f} |")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
