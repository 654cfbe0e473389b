"""Refuse httpx clients on any loop but their own; measure their pools. Tested with httpx 0.28 and httpx2 2.16."""

import asyncio
import sys
from typing import Any, TypeVar

from homeloop import LoopGuard, PoolStatistics

T = TypeVar("T")

__all__ = ("guard", "measure")

_RESPONSE = LoopGuard(coroutines=True)


def _guard_response(response: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Guard a response that is still to be read; one that was read is plain data."""
    return response if response.is_closed else _RESPONSE(response, loop)


# Every request of a client goes through send().
_CLIENT = LoopGuard("send", "aclose", "__aenter__", "__aexit__", results={"send": _guard_response})


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a client and the responses that it streams.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    # A shape, not a class: the product has been forked.
    return _CLIENT(value, loop) if hasattr(value, "send") and hasattr(value, "aclose") else value


def measure(value: Any) -> PoolStatistics | None:
    """Tell what a client's own pool has and gives, without those of mounts; None if there is none. Thread: any."""
    pool = getattr(getattr(value, "_transport", None), "_pool", None)
    if pool is None:
        return None
    connections = tuple(pool._connections)
    in_use = sum(not connection.is_idle() for connection in connections)
    waiting = sum(request.is_queued() for request in tuple(pool._requests))
    limit = pool._max_connections
    return PoolStatistics(len(connections), in_use, None if limit == sys.maxsize else limit, waiting)
