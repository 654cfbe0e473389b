"""
Refuse redis.asyncio clients on any loop but their own, and measure their pools.

Tested with redis 8.1; RedisCluster is neither guarded nor measured.
"""

import asyncio
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.client import Pipeline

from homeloop import LoopGuard, PoolStatistics

T = TypeVar("T")

__all__ = ("guard", "measure")

_CONNECTION = LoopGuard(
    "connect", "disconnect", "send_packed_command", "read_response", "can_read", "check_health"
)
_POOL = LoopGuard(coroutines=True, results={"get_connection": _CONNECTION})
_PART = LoopGuard(coroutines=True)
_LOCK = LoopGuard("acquire", "release", "locked", "owned", "extend", "reacquire", "__aenter__", "__aexit__")


def _guard_client(client: T, loop: asyncio.AbstractEventLoop) -> T:
    return _CLIENT(client, loop)


_CLIENT = LoopGuard(
    "execute_command",
    "initialize",
    "transaction",
    "aclose",
    "__aenter__",
    "__aexit__",
    results={
        "client": _guard_client,
        "lock": _LOCK,
        "monitor": _PART,
        "pipeline": _PART,
        "pubsub": _PART,
    },
)


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a client or a connection pool, with its connections, pipelines, locks, and its subscribers.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    if isinstance(value, ConnectionPool):
        return _POOL(value, loop)
    if isinstance(value, Redis) and not isinstance(value, Pipeline):
        _POOL(value.connection_pool, loop)
        return _CLIENT(value, loop)
    return value


def measure(value: Any) -> PoolStatistics | None:
    """Tell what a client's pool, or a pool, has and gives; None for anything else. Thread: any."""
    pool: Any = value.connection_pool if isinstance(value, Redis) else value
    if not issubclass(type(pool), ConnectionPool):
        return None
    in_use = len(pool._in_use_connections)
    waits = issubclass(type(pool), BlockingConnectionPool)  # the others raise
    waiting = len(pool._condition._waiters) if waits else None
    return PoolStatistics(in_use + len(pool._available_connections), in_use, pool.max_connections, waiting)
