"""LangGraph's savers and stores on SQLite, one per loop. Tested with langgraph-checkpoint-sqlite 3.1."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.sqlite.aio import AsyncSqliteStore  # pyright: ignore[reportMissingTypeStubs] - typed inline
from langgraph.store.sqlite.base import SqliteIndexConfig  # pyright: ignore[reportMissingTypeStubs] - typed inline

from homeloop import LoopLocal
from homeloop.adapters.langgraph._stores import batching

__all__ = ("loop_local_saver", "loop_local_store")


def loop_local_saver(path: str | Path) -> LoopLocal[AsyncSqliteSaver]:
    """
    Give every loop a saver of its own, all on one file.

    Args:
        path: The file. ``":memory:"`` gives every loop a memory of its own.
    """
    return LoopLocal(lambda: AsyncSqliteSaver.from_conn_string(str(path)), name="LangGraph saver")


def loop_local_store(path: str | Path, *, index: SqliteIndexConfig | None = None) -> LoopLocal[AsyncSqliteStore]:
    """
    Give every loop a store of its own, all on one file; its tables are made when they are not there.

    Args:
        path: The file. ``":memory:"`` gives every loop a memory of its own.
        index: LangGraph's configuration of semantic search.
    """

    @asynccontextmanager
    async def open_store() -> AsyncGenerator[AsyncSqliteStore, None]:
        async with AsyncSqliteStore.from_conn_string(str(path), index=index) as store, batching(store):
            await store.setup()
            yield store

    return LoopLocal(open_store, name="LangGraph store")
