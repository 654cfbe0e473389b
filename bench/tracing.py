"""
What does each level of tracing cost, and what does a diagnosis?

Levels 0 to 3 in interleaved rounds in one process: a query on a kept asyncpg connection, tasks that wait once,
contended locks, pools and clients made; ratios to level 0 of the same round. Beside them
asyncio's own debug mode, the diagnosis of a failed call and its render.

Usage: python bench/tracing.py [--rounds N]    (PostgreSQL: TEST_DATABASE_URL, or the local one)
"""

import argparse
import asyncio
import logging
import os
import statistics
import time
from collections.abc import Awaitable, Callable

import asyncpg
import httpx

from homeloop import diagnose, trace

DSN = os.environ.get("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
QUERIES, TASKS, WAITS, CLIENTS = 300, 10_000, 3_000, 200  # per round
DEBUG = "asyncio's debug mode"
LEVELS = ("0", "1", "2", "3", DEBUG)

Work = Callable[[], Awaitable[int]]


async def queries() -> int:
    """Ask a kept connection."""
    for _ in range(QUERIES):
        await KEPT[0].fetchval("select 1")
    return QUERIES


async def tasks() -> int:
    """Start tasks that wait once."""
    for _ in range(TASKS // 100):
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(100)))
    return TASKS


async def locks() -> int:
    """Have tasks wait for each other's lock."""
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await asyncio.sleep(0)

    for _ in range(WAITS // 10):
        await asyncio.gather(*(hold() for _ in range(10)))
    return WAITS


async def pools() -> int:
    """Make pools that are not opened, and clients."""
    for _ in range(CLIENTS):
        asyncpg.create_pool(DSN, min_size=1, max_size=1)
        httpx.AsyncClient(verify=False)
    return CLIENTS


WORK: dict[str, Work] = {
    "a query on asyncpg": queries,
    "a task that waits once": tasks,
    "a contended lock": locks,
    "a pool and a client made": pools,
}
KEPT: list["asyncpg.Connection[asyncpg.Record]"] = []


async def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return microseconds by work and level, one per round."""
    KEPT.append(await asyncpg.connect(DSN))
    seen: dict[str, dict[str, list[float]]] = {name: {level: [] for level in LEVELS} for name in WORK}
    loop = asyncio.get_running_loop()
    for number in range(rounds + 1):
        for level in LEVELS if number % 2 else LEVELS[::-1]:
            trace.enable(0 if level == DEBUG else int(level))
            loop.set_debug(level == DEBUG)
            for name, work in WORK.items():
                begun = time.perf_counter()
                count = await work()
                if number:  # the first round warms up
                    seen[name][level].append((time.perf_counter() - begun) / count * 1e6)
            loop.set_debug(False)
            trace.disable()
    await KEPT.pop().close()
    return seen


def diagnosis(rounds: int) -> dict[str, list[float]]:
    """Return the microseconds that a diagnosis and its render take, and how long an ordinary error takes."""
    lock = asyncio.Lock()

    async def contend() -> None:
        async def hold() -> None:
            async with lock:
                await asyncio.sleep(0)

        await asyncio.gather(hold(), hold())

    asyncio.run(contend())
    taken: dict[str, list[float]] = {"an ordinary error, no finding": [], "a finding": [], "its render": []}
    for _ in range(rounds * 20):
        for name, error in (("an ordinary error, no finding", ordinary()), ("a finding", caught(contend))):
            begun = time.perf_counter()
            found = diagnose(error)
            taken[name].append((time.perf_counter() - begun) * 1e6)
            if found is not None:
                begun = time.perf_counter()
                found.render()
                taken["its render"].append((time.perf_counter() - begun) * 1e6)
    return taken


def ordinary() -> BaseException:
    """Return an error that has nothing to do with loops."""

    async def fail() -> None:
        int("x")

    return caught(fail)


def caught(fn: Callable[[], Awaitable[object]]) -> BaseException:
    """Return what a coroutine function raises."""

    async def main() -> None:
        await fn()

    try:
        asyncio.run(main())
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # debug mode tells of slow callbacks
    seen = asyncio.run(measure(rounds))
    print("| | level 0, µs | level 1 | level 2 | level 3 | asyncio's debug mode |\n|---|---|---|---|---|---|")
    for name, levels in seen.items():
        ratios = [
            statistics.median(ours / base for ours, base in zip(levels[level], levels["0"], strict=True))
            for level in LEVELS[1:]
        ]
        print(
            f"| {name} | {statistics.median(levels['0']):.1f} | "
            + " | ".join(f"{each:.2f}" for each in ratios)
            + " |"
        )
    print()
    for name, taken in diagnosis(rounds).items():
        print(f"{name}: {statistics.median(taken):.0f} µs")


if __name__ == "__main__":
    main()
