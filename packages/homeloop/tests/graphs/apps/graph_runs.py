"""How tests run graphs: within a deadline, each in a thread of its own."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

DEADLINE = 60.0  # seconds; tells a hang from an answer


def go(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run an async function on a loop of its own, within the deadline."""

    async def bounded() -> Any:
        async with asyncio.timeout(DEADLINE):
            return await fn(*args)

    return asyncio.run(bounded())


def thread() -> Any:
    """Return a configuration that names a thread of its own."""
    return {"configurable": {"thread_id": uuid.uuid4().hex}}
