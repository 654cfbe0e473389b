"""Work for the tiers that reports its progress: functions that another process can import."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable


async def report_many(count: int, report: Callable[..., Awaitable[None]]) -> int:
    for number in range(count):
        await report("step", number, "going on")
    return count


async def report_from_deep_inside() -> None:
    import homeloop

    async def node() -> None:
        await homeloop.current_report()("node", 50.0, "half")

    async with asyncio.TaskGroup() as group:
        group.create_task(node())


async def report_and_die(report: Callable[..., Awaitable[None]]) -> None:
    await report("parsing", 40.0, "page 3")
    os._exit(9)


async def report_something(
    thing: object, die: bool = False, report: Callable[..., Awaitable[None]] | None = None
) -> None:
    assert report is not None
    await report(thing)
    if die:
        os._exit(9)


async def report_then_wait(report: Callable[..., Awaitable[None]]) -> None:
    await report("begun")
    await asyncio.Event().wait()


async def report_until_cancelled(report: Callable[..., Awaitable[None]]) -> None:
    """Report, wait for ever, and report once more in the clean-up."""
    try:
        await report("begun")
        await asyncio.Event().wait()
    finally:
        await report("cleaning up")


async def report_and_yield(report: Callable[..., Awaitable[None]]) -> AsyncGenerator[int]:
    yield 1
    await report("going on", 50.0)
    yield 2


async def report_optionally(report: Callable[..., Awaitable[None]] | None = None) -> bool:
    return report is not None


async def report_at_once(count: int, report: Callable[..., Awaitable[None]]) -> None:
    """Report from many tasks at a time, without waiting in between."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(report("step", number, "going on"))  # type: ignore[arg-type]


async def report_lock(report: Callable[..., Awaitable[None]]) -> None:
    await report(threading.Lock())
