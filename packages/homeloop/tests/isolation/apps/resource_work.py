"""A resource with a task of its own, as pools and stores have; it may forget to end it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from homeloop import LoopLocal


@asynccontextmanager
async def served(ends: bool) -> AsyncGenerator[list[str], None]:
    """Have a worker that must be there until the resource is closed."""
    worker = asyncio.create_task(asyncio.Event().wait(), name="a resource's worker")
    yield []
    assert not worker.done(), "the worker was ended before its resource"
    if ends:
        worker.cancel()
        await asyncio.wait((worker,))


tidy = LoopLocal(lambda: served(True))
untidy = LoopLocal(lambda: served(False))


async def use_tidy() -> None:
    """Open what ends its worker."""
    await tidy.get()


async def use_untidy() -> None:
    """Open what does not."""
    await untidy.get()
