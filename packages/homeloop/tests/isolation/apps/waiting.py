"""Waiting, in a test on a loop, for what happens elsewhere: in a thread, in another process."""

import asyncio
from collections.abc import Callable

DEADLINE = 60.0  # seconds; tells a hang from an answer


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, which nobody tells of."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)
