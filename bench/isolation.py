"""
What does an isolation tier cost, on a real LangGraph graph of four nodes?

The tiers and what people do by hand run side by side in one process, a few calls each in turn, so that a busy
machine slows all of them; ratios are to the median of the plain await. Then: what a worker process weighs, what
it costs to start one, and how throughput grows with workers.

Usage: python bench/isolation.py [--rounds N] [--json FILE]

On a busy machine threads and processes mostly wait for their turn: ``chrt -f 1 python bench/isolation.py``.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import graphs

from homeloop import Isolation, IsolationExecutor

DIRECT = "direct"
TIERS = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
Call = Callable[[], Awaitable[Any]]


def unique_memory(pid: int) -> int:
    """A process's unique set size in kB: what the kernel would get back if it ended. Linux only."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def in_fresh_thread(fn: Callable[[int], int]) -> Call:
    """A thread and a loop per run, as the documents have it."""

    async def call() -> int:
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, fn, 0)

    return call


def in_pool(pool: Any, fn: Callable[[int], int]) -> Call:
    """An executor that is kept, with a loop per run."""
    return lambda: asyncio.get_running_loop().run_in_executor(pool, fn, 0)


async def compare(peers: dict[str, Call], rounds: int, in_a_row: int) -> dict[str, dict[str, float]]:
    """Take turns; return median milliseconds and the median ratio to the direct run."""
    taken: dict[str, list[float]] = {name: [] for name in peers}
    for call in peers.values():
        for _ in range(5):
            await call()
    order = list(peers.items())
    chance = random.Random(0)
    for _ in range(rounds):
        chance.shuffle(order)  # who comes after a process finds the caches cold
        for name, call in order:
            for _ in range(in_a_row):
                begin = time.perf_counter()
                await call()
                taken[name].append(time.perf_counter() - begin)
    direct = taken[DIRECT]
    return {
        name: {
            "ms": 1000 * statistics.median(times),
            "p99": 1000 * sorted(times)[int(len(times) * 0.99)],
            "ratio": statistics.median(times) / statistics.median(direct),
        }
        for name, times in taken.items()
    }


def tiers(executor: IsolationExecutor, fn: Callable[[int], Awaitable[int]]) -> dict[str, Call]:
    """Every tier of homeloop."""

    def in_tier(tier: Isolation) -> Call:
        return lambda: executor.run(fn, 0, isolation=tier)

    return {f"homeloop, {tier.value}": in_tier(tier) for tier in TIERS}


async def cost(rounds: int) -> dict[str, Any]:
    """What a run costs in each tier and by hand."""
    result: dict[str, Any] = {}
    with (
        IsolationExecutor(name="bench", preload=["graphs"], max_processes=1) as executor,
        ThreadPoolExecutor(1) as thread,
        ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as process,
    ):
        for name, fn, fresh in (
            ("1 ms", graphs.fast, graphs.fast_in_new_loop),
            ("100 ms", graphs.slow, graphs.slow_in_new_loop),
        ):
            peers: dict[str, Call] = {
                DIRECT: lambda fn=fn: fn(0),
                **tiers(executor, fn),
                "kept thread, asyncio.run": in_pool(thread, fresh),
                "fresh thread, asyncio.run": in_fresh_thread(fresh),
                "ProcessPoolExecutor, asyncio.run": in_pool(process, fresh),
            }
            result[name] = await (
                compare(peers, rounds, 10) if name == "1 ms" else compare(peers, max(10, rounds // 4), 1)
            )
    return result


async def workers(most: int) -> list[dict[str, float]]:
    """Start-up, weight and throughput by number of workers."""
    rows = []
    for count in range(1, most + 1):
        with IsolationExecutor(name="bench", preload=["graphs"], max_processes=count) as executor:
            begin = time.perf_counter()
            await executor.run(asyncio.sleep, 0, isolation=Isolation.PROCESS)
            first = time.perf_counter() - begin
            pids: set[int] = set()
            await asyncio.gather(
                *(executor.run(asyncio.sleep, 0.3, isolation=Isolation.PROCESS) for _ in range(count))
            )
            for _ in range(2):
                places = [executor.run(place, isolation=Isolation.PROCESS) for _ in range(4 * count)]
                pids |= set(await asyncio.gather(*places))
            for jobs in (count, 20):  # the first ones import and warm up
                begin = time.perf_counter()
                burning = [executor.run(graphs.burn, 20, isolation=Isolation.PROCESS) for _ in range(jobs)]
                await asyncio.gather(*burning)
            rate = 400 / (time.perf_counter() - begin)
            weights = [unique_memory(pid) for pid in pids]
            rows.append(
                {
                    "workers": count,
                    "first s": first,
                    "graphs/s": rate,
                    "unique kB each": statistics.mean(weights),
                }
            )
            begin = time.perf_counter()
            os.kill(next(iter(pids)), 9)
            while True:
                try:
                    await executor.run(asyncio.sleep, 0, isolation=Isolation.PROCESS)
                    break
                except RuntimeError:
                    continue
            rows[-1]["another ms"] = 1000 * (time.perf_counter() - begin)
    return rows


def stay_on_one_cpu() -> set[int]:
    """Keep all that takes part on one CPU, so that rounds compare; return where it could be before."""
    if not hasattr(os, "sched_setaffinity"):  # Linux only
        return set()
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(everywhere)})
    return everywhere


async def place() -> int:
    """Tell the process, and take a moment."""
    await asyncio.sleep(0.02)
    return os.getpid()


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    everywhere = stay_on_one_cpu()
    costs = asyncio.run(cost(given.rounds))
    if everywhere:
        os.sched_setaffinity(0, everywhere)
    found = {
        "versions": f"CPython {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("homeloop", "langgraph")),
        "cost": costs,
        "workers": asyncio.run(workers(os.cpu_count() or 1)),
    }
    print(f"{found['versions']}\n")
    for name, rows in found["cost"].items():
        print(f"### A run of about {name}\n\n| | ms | p99 ms | to direct |\n|---|---|---|---|")
        for peer, row in rows.items():
            print(f"| {peer} | {row['ms']:.2f} | {row['p99']:.2f} | {row['ratio']:.2f} |")
        print()
    print("### Worker processes\n")
    columns = list(found["workers"][0])
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in found["workers"]:
        print(f"| {' | '.join(f'{value:.4g}' for value in row.values())} |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
