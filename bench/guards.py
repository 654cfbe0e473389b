"""
What does the owner check of a guarded resource cost?

One query on the same kept connection, once as the driver made it and once guarded, in interleaved
rounds on one loop; and an entry that does nothing, which leaves the check alone.

Usage: python bench/guards.py [--rounds N]    (PostgreSQL: TEST_DATABASE_URL, or the local one)
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable

import asyncpg

from homeloop import LoopGuard, guard

DSN = os.environ.get("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
ENTRIES, QUERIES = 20_000, 200  # calls per round


class Nothing:
    """Entries that do nothing."""

    async def fetch(self) -> None:
        """Return at once."""

    def release(self) -> None:
        """Return at once."""


async def coroutine_round(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return the microseconds of one call."""
    begun = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - begun) / calls * 1e6


async def function_round(call: Callable[[], object], calls: int) -> float:
    """Return the microseconds of one call."""
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls * 1e6


async def main(rounds: int) -> None:
    """Print the medians."""
    loop = asyncio.get_running_loop()
    plain, guarded = Nothing(), LoopGuard("fetch", "release")(Nothing(), loop)
    by_hand, ours = await asyncpg.connect(DSN), guard(await asyncpg.connect(DSN), loop)
    rows: dict[str, tuple[list[float], list[float]]] = {}

    def add(name: str, left: float, right: float) -> None:
        rows.setdefault(name, ([], []))[0].append(left)
        rows[name][1].append(right)

    for _ in range(rounds):
        add(
            "function",
            await function_round(plain.release, ENTRIES),
            await function_round(guarded.release, ENTRIES),
        )
        add(
            "coroutine", await coroutine_round(plain.fetch, ENTRIES), await coroutine_round(guarded.fetch, ENTRIES)
        )
        add(
            "asyncpg fetchval",
            await coroutine_round(lambda: by_hand.fetchval("select 1"), QUERIES),
            await coroutine_round(lambda: ours.fetchval("select 1"), QUERIES),
        )
    print("| | plain µs | guarded µs | more |\n|---|---|---|---|")
    for name, pair in rows.items():
        left, right = map(statistics.median, pair)
        print(f"| {name} | {left:.2f} | {right:.2f} | {right - left:.2f} |")
    await by_hand.close()
    await ours.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=20)
    asyncio.run(main(parser.parse_args().rounds))
