"""
Refuse SQLAlchemy's asynchronous engines on any loop but their own, and measure their pools.

Tested with SQLAlchemy 2.1.
"""

import asyncio
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool

import homeloop
from homeloop import LoopGuard, PoolStatistics

T = TypeVar("T")

__all__ = ("guard", "measure")

# An engine, its variants with other options and all their connections share the dialect.
_TRANSACTION = LoopGuard(coroutines=True, loop="connection.sync_engine.dialect._home_loop")
_CONNECTION = LoopGuard(
    coroutines=True,
    loop="sync_engine.dialect._home_loop",
    results={"begin": _TRANSACTION, "begin_nested": _TRANSACTION},
)
_ENGINE = LoopGuard(
    "dispose", "raw_connection", loop="sync_engine.dialect._home_loop", results={"connect": _CONNECTION}
)

# What sessions use, which are made by others and come here with their greenlet.
_SYNC_CONNECTION = LoopGuard(
    "execute",
    "exec_driver_sql",
    "begin",
    "begin_nested",
    "commit",
    "rollback",
    "close",
    "invalidate",
    "detach",
    loop="dialect._home_loop",
)


_SESSION_PART = LoopGuard(coroutines=True, loop="session._home_loop")


def _guard_pool(pool: Pool, loop: asyncio.AbstractEventLoop) -> Pool:
    return _POOL(pool, loop)


_POOL = LoopGuard("connect", "dispose", results={"recreate": _guard_pool})


def guard(value: T, loop: asyncio.AbstractEventLoop) -> T:
    """
    Guard an engine, its pool, and the connections and transactions that are got from it.

    The driver's own connections are guarded too, if the driver has a guard. A sessionmaker is guarded
    with its engine, and its sessions with it.

    Raises:
        WrongLoopError: It belongs to another loop.
    """
    if issubclass(type(value), AsyncEngine):
        _guard_engine(cast("AsyncEngine", value), loop)
    elif issubclass(type(value), async_sessionmaker):
        _guard_sessions(cast("async_sessionmaker[Any]", value), loop)
    return value


def _guard_engine(engine: AsyncEngine, loop: asyncio.AbstractEventLoop) -> None:
    sync_engine = engine.sync_engine
    dialect: Any = sync_engine.dialect
    if getattr(dialect, "_home_loop", None) is None:
        dialect._home_loop = loop

        def on_connection(connection: Connection) -> None:
            _SYNC_CONNECTION(connection, loop)

        def on_checkout(_: object, entry: ConnectionPoolEntry, __: object) -> None:
            if entry.driver_connection is not None:
                homeloop.guard(entry.driver_connection, loop)

        event.listen(sync_engine, "engine_connect", on_connection)
        event.listen(sync_engine.pool, "checkout", on_checkout)
    _guard_pool(sync_engine.pool, loop)
    _ENGINE(engine, loop)


def _guard_sessions(sessions: "async_sessionmaker[Any]", loop: asyncio.AbstractEventLoop) -> None:
    engine: object = sessions.kw.get("bind")
    if isinstance(engine, AsyncEngine):
        _guard_engine(engine, loop)
    if getattr(sessions.class_, "_home_loop", None) is None:
        # A guard of its own: every sessionmaker has a class of its own, which goes with it.
        own = LoopGuard(coroutines=True, results={"begin": _SESSION_PART, "begin_nested": _SESSION_PART})
        sessions.class_ = own.type_of(cast("type[AsyncSession]", sessions.class_))
        cast("Any", sessions.class_)._home_loop = loop


def measure(value: Any) -> PoolStatistics | None:
    """Tell what the pool of an engine or a sessionmaker has and gives; None if it keeps no queue. Thread: any."""
    engine: Any = value.kw.get("bind") if issubclass(type(value), async_sessionmaker) else value
    pool: Any = engine.sync_engine.pool if issubclass(type(engine), AsyncEngine) else None
    if not issubclass(type(pool), QueuePool):
        return None
    queue = cast("Any", vars(pool._pool)).get("_queue")  # made by its first use, which must not be here
    free = 0 if queue is None else queue.qsize()
    size = pool.size() + pool._overflow
    limit = None if pool._max_overflow < 0 else pool.size() + pool._max_overflow
    return PoolStatistics(size, size - free, limit, 0 if queue is None else len(queue._getters))
