"""Refuse asyncpg pools and connections on any loop but their own; measure pools. Tested with asyncpg 0.32."""

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from asyncpg import Connection, Pool
from asyncpg.cursor import Cursor
from asyncpg.pool import PoolConnectionProxy

from homeloop import LoopGuard, PoolStatistics, check_loop
from homeloop.errors import WrongLoopError

T = TypeVar("T")

__all__ = ("guard", "measure")


def _on_its_loop(end: Callable[[Any], None]) -> Callable[[Any], None]:
    """Have a connection ended on its own loop, whoever ends it: garbage is collected on any thread."""

    @wraps(end)
    def end_at_home(connection: Any) -> None:
        loop: asyncio.AbstractEventLoop = connection._loop
        try:
            check_loop(loop, "a connection")
        except WrongLoopError:
            try:
                loop.call_soon_threadsafe(end, connection)
                return
            except RuntimeError:
                pass  # the loop is closed, and nobody lives there who could be disturbed
        end(connection)

    return end_at_home


def _guard_cursor(made: Any, loop: asyncio.AbstractEventLoop) -> Any:
    return (_CURSOR if issubclass(type(made), Cursor) else _CURSOR_ITERATOR)(made, loop)


_OF_CONNECTION = "_connection._loop"
_CURSOR = LoopGuard(coroutines=True, loop=_OF_CONNECTION)
_CURSOR_ITERATOR = LoopGuard("__anext__", loop=_OF_CONNECTION)
_CURSOR_FACTORY = LoopGuard(
    "__await__", loop=_OF_CONNECTION, results={"__await__": _guard_cursor, "__aiter__": _guard_cursor}
)
_STATEMENT = LoopGuard(coroutines=True, loop=_OF_CONNECTION, results={"cursor": _CURSOR_FACTORY})
_TRANSACTION = LoopGuard(coroutines=True, loop=_OF_CONNECTION)
_CONNECTION = LoopGuard(
    coroutines=True,
    loop="_loop",
    results={"cursor": _CURSOR_FACTORY, "prepare": _STATEMENT, "transaction": _TRANSACTION},
    corrections={"terminate": _on_its_loop, "__del__": _on_its_loop},
)


def _guard_proxy(proxy: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Guard the connection in a pool's proxy; the pool insists on the proxy's own class."""
    if proxy._con is not None:
        _CONNECTION(proxy._con, loop)
    return proxy


# Every query of a pool goes through _acquire().
_POOL = LoopGuard(
    "_acquire",
    "release",
    "close",
    "terminate",
    "expire_connections",
    loop="_loop",
    results={"_acquire": _guard_proxy},
)


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard a pool or a connection and what is got from it: connections, transactions, statements, cursors.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    if issubclass(type(value), Pool):
        return _POOL(value, loop)
    if issubclass(type(value), PoolConnectionProxy):
        _guard_proxy(value, loop)
    elif issubclass(type(value), Connection):
        return _CONNECTION(value, loop)
    return value


def measure(value: Any) -> PoolStatistics | None:
    """Tell what a pool has and gives; None for anything else. Thread: any."""
    if not issubclass(type(value), Pool) or value._queue is None:  # it is not open
        return None
    free = value._queue  # of places for connections, open ones or not
    limit: int = value.get_max_size()
    return PoolStatistics(value.get_size(), limit - free.qsize(), limit, len(free._getters))
