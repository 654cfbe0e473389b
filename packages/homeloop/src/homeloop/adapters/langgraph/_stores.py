"""The end of stores: they batch what is asked of them in a task of their own, which nobody else ends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeVar

from langgraph.store.base.batch import AsyncBatchedBaseStore

S = TypeVar("S", bound=AsyncBatchedBaseStore)


@asynccontextmanager
async def batching(store: S) -> AsyncGenerator[S, None]:
    """Keep a store for a while; end its task at the end."""
    try:
        yield store
    finally:
        task: asyncio.Task[None] | None = getattr(store, "_task", None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
