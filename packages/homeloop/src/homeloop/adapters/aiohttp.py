"""Refuse aiohttp sessions on any loop but their own; measure their connectors. Tested with aiohttp 3.14."""

import asyncio
from typing import Any, TypeVar

from aiohttp import EMPTY_PAYLOAD, ClientSession

from homeloop import LoopGuard, PoolStatistics

T = TypeVar("T")

__all__ = ("guard", "measure")

_BODY = LoopGuard(coroutines=True, loop="_loop")
_RESPONSE = LoopGuard("release", "close", coroutines=True, loop="_loop")
_SOCKET = LoopGuard(coroutines=True, loop="_loop")


def _guard_response(response: Any, loop: asyncio.AbstractEventLoop) -> Any:
    if response.content is not EMPTY_PAYLOAD:  # the one of all responses without a body
        _BODY(response.content, loop)
    return _RESPONSE(response, loop)


# Every request of a session goes through the first two.
_SESSION = LoopGuard(
    "_request",
    "_ws_connect",
    "close",
    "__aenter__",
    "__aexit__",
    loop="_loop",
    results={"_request": _guard_response, "_ws_connect": _SOCKET},
)


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a session, its responses with their bodies, and its web sockets.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    return _SESSION(value, loop) if issubclass(type(value), ClientSession) else value


def measure(value: Any) -> PoolStatistics | None:
    """Tell what a session's connector has and gives; None if it is closed. Thread: any."""
    connector = value.connector if issubclass(type(value), ClientSession) else None
    if connector is None:
        return None
    in_use = len(connector._acquired)
    idle = sum(map(len, connector._conns.copy().values()))
    waiting = sum(map(len, connector._waiters.copy().values()))
    return PoolStatistics(in_use + idle, in_use, connector.limit or None, waiting)
