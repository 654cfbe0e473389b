"""Tracing of objects: where pools, clients and tasks are made."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from homeloop._provenance import ObjectRecord, Spot, object_records
from homeloop.runtime._trace_patches import Method, Patches, Switch

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


class _Importing(MetaPathFinder):
    """Patches a module's classes as soon as the program has loaded it; loads nothing itself."""

    def __init__(self, patches: Patches, find_spot: FindSpot) -> None:
        self.patches, self.find_spot = patches, find_spot
        self._busy: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _CONSTRUCTORS or fullname in self._busy:
            return None
        self._busy.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._busy.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Watched(spec.loader, self.patches, self.find_spot)
        return spec


class _Watched(Loader):
    """
    Loads one module as its own loader does, then patches it; nothing of it is left in the module.

    Not an attribute set on the loader: one loader may load many modules, as that of a zip file does.
    """

    def __init__(self, loader: Loader, patches: Patches, find_spot: FindSpot) -> None:
        self._loader, self._patches, self._find_spot = loader, patches, find_spot

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _patch_module(module, self._patches, self._find_spot)


def patch_constructors(patches: Patches, find_spot: FindSpot) -> MetaPathFinder:
    """
    Record where pools and clients are made.

    Args:
        patches: Keeps what is exchanged.
        find_spot: Tells the program's place.

    Returns:
        The finder that was put on ``sys.meta_path``.
    """
    for name in _CONSTRUCTORS:
        if name in sys.modules:
            _patch_module(sys.modules[name], patches, find_spot)
    finder = _Importing(patches, find_spot)
    sys.meta_path.insert(0, finder)
    return finder


def _patch_module(module: ModuleType, patches: Patches, find_spot: FindSpot) -> None:
    for name in _CONSTRUCTORS[module.__name__]:
        kind = getattr(module, name, None)
        if kind is not None:
            patches.wrap(kind, "__init__", partial(_constructing, find_spot))


def _constructing(find_spot: FindSpot, original: Method, switch: Switch) -> Method:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if switch.is_on:
            object_records.put(self, ObjectRecord(os.getpid(), find_spot()))
        original(self, *args, **kwargs)

    return __init__


def patch_tasks(patches: Patches, find_spot: FindSpot) -> None:
    """Record where tasks are made, told by ``find_spot``."""
    classes: list[Any] = [asyncio.BaseEventLoop]
    if "uvloop" in sys.modules:
        classes.append(sys.modules["uvloop"].Loop)
    for kind in classes:
        patches.wrap(kind, "create_task", partial(_starting, find_spot))


def _starting(find_spot: FindSpot, original: Method, switch: Switch) -> Method:
    def create_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        task = original(self, *args, **kwargs)
        if switch.is_on:
            object_records.put(task, ObjectRecord(os.getpid(), find_spot()))
        return task

    return create_task
