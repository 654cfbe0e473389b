"""Refuse redis.asyncio clients on any loop but their own. Tested with redis 8.1; RedisCluster is not guarded."""

import asyncio
from typing import TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline

from homeloop import LoopGuard

T = TypeVar("T")

__all__ = ("guard",)

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
