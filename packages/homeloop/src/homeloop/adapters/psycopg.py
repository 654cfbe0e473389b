"""
Refuse psycopg connections and pools on any loop but their own, and measure pools.

Tested with psycopg 3.3 and psycopg_pool 3.3.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from psycopg import AsyncConnection

from homeloop import LoopGuard, PoolStatistics

T = TypeVar("T")

__all__ = ("guard", "measure")


def _not_once_cancelled(get: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """
    End a worker that was cancelled while it connected, when it looks for work again.

    The worker swallows that cancellation. `asyncio.run`, which waits at its end for the tasks that it
    has cancelled, would wait for ever.
    """

    @wraps(get)
    async def get_work(queue: Any) -> Any:
        worker = asyncio.current_task()
        if worker is not None and worker.cancelling():
            raise asyncio.CancelledError
        return await get(queue)

    return get_work


def _after_its_workers(close: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """
    Close the connections at the end of the loop too.

    The end cancels every task first, and so the pool's workers. To wait for a cancelled worker would
    cancel the closing, with every connection left open.
    """

    @wraps(close)
    async def close_pool(pool: Any, timeout: float = 5.0) -> None:
        pool._workers = [worker for worker in pool._workers if not worker.done()]
        if pool._sched_runner is not None and pool._sched_runner.done():
            pool._sched_runner = None
        await close(pool, timeout)

    return close_pool


# Taken by cursors, copies, pipelines and transactions before anything else.
_LOCK = LoopGuard("acquire", name="psycopg.AsyncConnection.lock")
_CURSOR = LoopGuard(coroutines=True, loop="_conn._home_loop")
_CONNECTION = LoopGuard(coroutines=True, results={"cursor": _CURSOR})


def _guard_connection(connection: T, loop: asyncio.AbstractEventLoop) -> T:
    if issubclass(type(connection), AsyncConnection):
        _CONNECTION(connection, loop)
        _LOCK(cast("Any", connection).lock, loop)
    return connection


_QUEUE = LoopGuard(corrections={"get": _not_once_cancelled}, name="psycopg_pool.AsyncConnectionPool's work")
_POOL = LoopGuard(
    coroutines=True, results={"getconn": _guard_connection}, corrections={"close": _after_its_workers}
)


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a connection or an asynchronous pool of them, and the connections that the pool gives.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    # A shape, not a class: connections are had without psycopg_pool too.
    if not (hasattr(type(value), "getconn") and hasattr(type(value), "__aenter__")):
        return _guard_connection(value, loop)
    work = getattr(value, "_tasks", None)  # there is none before the pool is open
    if work is not None:
        _QUEUE(work, loop)
    return _POOL(value, loop)


def measure(value: Any) -> PoolStatistics | None:
    """Tell what a pool has and gives; None for anything else. Thread: any."""
    get_stats = getattr(value, "get_stats", None)  # a shape, as above
    if get_stats is None:
        return None
    told: dict[str, int] = get_stats()
    size = told["pool_size"]
    return PoolStatistics(size, size - told["pool_available"], told["pool_max"] or None, told["requests_waiting"])
