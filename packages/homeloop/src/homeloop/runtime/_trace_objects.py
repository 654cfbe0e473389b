"""Tracing of objects: where pools, clients and tasks are made."""

import inspect
import os
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from homeloop._provenance import ObjectRecord, Spot, object_records
from homeloop.runtime._trace_imports import Hook
from homeloop.runtime._trace_patches import Method, Patches, Switch
from homeloop.runtime._trace_sites import is_end_of_block

FindSpot = Callable[[], Spot | None]
_CONSTRUCTORS: dict[str, tuple[str, ...]] = {
    "asyncpg.pool": ("Pool",),
    "asyncpg.connection": ("Connection",),
    "psycopg_pool.pool_async": ("AsyncConnectionPool",),
    "psycopg.connection_async": ("AsyncConnection",),
    "sqlalchemy.ext.asyncio.engine": ("AsyncEngine",),
    "redis.asyncio.client": ("Redis",),
    "redis.asyncio.connection": ("AbstractConnection",),
    "httpx._client": ("AsyncClient",),
    "httpx2._client": ("AsyncClient",),
    "aiohttp.client": ("ClientSession",),
    "langgraph.checkpoint.postgres.aio": ("AsyncPostgresSaver",),
    "langgraph.checkpoint.sqlite.aio": ("AsyncSqliteSaver",),
    "langgraph.store.sqlite.aio": ("AsyncSqliteStore",),
    "langgraph.store.postgres.aio": ("AsyncPostgresStore",),
}
_CLOSINGS = ("__aexit__", "aclose", "close")


def constructor_hooks(patches: Patches, find_spot: FindSpot) -> dict[str, Hook]:
    """
    Return what records where pools and clients are made, and where blocks end that close them, by module.

    Args:
        patches: Keeps what is exchanged.
        find_spot: Tells the program's place.
    """
    return {name: partial(_patch_module, patches, find_spot, names) for name, names in _CONSTRUCTORS.items()}


def _patch_module(patches: Patches, find_spot: FindSpot, names: tuple[str, ...], module: ModuleType) -> None:
    for name in names:
        kind = getattr(module, name, None)
        if not isinstance(kind, type):
            continue  # of another version, or of a double that stands in the module's place
        patches.wrap(kind, "__init__", partial(_constructing, find_spot))
        for method in _CLOSINGS:
            if inspect.iscoroutinefunction(getattr(kind, method, None)):
                patches.wrap(kind, method, partial(_closing, is_block=method == "__aexit__"))


def _constructing(find_spot: FindSpot, original: Method, switch: Switch) -> Method:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if switch.is_on:
            object_records.put(self, ObjectRecord(os.getpid(), find_spot()))
        original(self, *args, **kwargs)

    return __init__


def _closing(original: Method, switch: Switch, *, is_block: bool) -> Method:
    async def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        record = object_records.get(self) if switch.is_on else None
        if record is not None:
            record.block_ended = is_block or is_end_of_block()
        return await original(self, *args, **kwargs)

    return close


def patch_tasks(patches: Patches, kind: Any, find_spot: FindSpot) -> None:
    """Record where a class of loops makes tasks, told by ``find_spot``."""
    patches.wrap(kind, "create_task", partial(_starting, find_spot))


def _starting(find_spot: FindSpot, original: Method, switch: Switch) -> Method:
    def create_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        task = original(self, *args, **kwargs)
        if switch.is_on:
            object_records.put(task, ObjectRecord(os.getpid(), find_spot(), since=time.monotonic()))
        return task

    return create_task
