"""The guard of LangGraph's savers and stores passes the conformance kit."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.sqlite.aio import AsyncSqliteStore
from psycopg_pool import AsyncConnectionPool

from homeloop import LoopLocal, LoopRuntime
from homeloop.errors import WrongLoopError
from homeloop.testing import CHECKS, Subject

Check = Callable[[Subject[Any]], None]
CONFIG: Any = {"configurable": {"thread_id": "nobody", "checkpoint_ns": ""}}
EVERYTHING: Any = ("everything",)


async def list_all(saver: Any) -> list[Any]:
    return [each async for each in saver.alist(CONFIG)]


def saver(kind: type[Any], where: str) -> Subject[Any]:
    async def wait(made: Any) -> None:
        async with made.lock:
            await made.aget_tuple(CONFIG)  # waits for the lock, for ever

    return Subject(
        factory=lambda: kind.from_conn_string(where),
        kind=kind,
        use=lambda made: made.aget_tuple(CONFIG),
        slow=wait,
        entries={
            "setup": lambda made: made.setup(),
            "aget_tuple": lambda made: made.aget_tuple(CONFIG),
            "alist": list_all,
            "aput": lambda made: made.aput(CONFIG, empty_checkpoint(), {}, {}),
            "aput_writes": lambda made: made.aput_writes(CONFIG, [], "task"),
            "adelete_thread": lambda made: made.adelete_thread("nobody"),
        },
    )


def store(kind: type[Any], where: str) -> Subject[Any]:
    async def wait(made: Any) -> None:
        async with made.lock:
            await made.aget(EVERYTHING, "key")

    return Subject(
        factory=lambda: kind.from_conn_string(where),
        kind=kind,
        use=lambda made: made.aget(EVERYTHING, "key"),
        slow=wait,
        entries={
            "aget": lambda made: made.aget(EVERYTHING, "key"),
            "aput": lambda made: made.aput(EVERYTHING, "key", {}),
            "asearch": lambda made: made.asearch(EVERYTHING),
            "adelete": lambda made: made.adelete(EVERYTHING, "key"),
            "abatch": lambda made: made.abatch([]),
        },
    )


def set_up(subject: Subject[Any]) -> Subject[Any]:
    """Have its tables made before several loops ask for them at once."""
    local = subject.local()

    async def make() -> None:
        await (await local.get()).setup()

    asyncio.run(make())
    return subject


SQLITE = {AsyncSqliteSaver: saver, AsyncSqliteStore: store}
POSTGRES = {AsyncPostgresSaver: saver, AsyncPostgresStore: store}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", SQLITE, ids=lambda kind: kind.__name__)
def test_sqlite(check: Check, kind: type[Any], tmp_path: Path) -> None:
    """Savers and stores over SQLite refuse strangers, and keep working for their owner."""
    check(set_up(SQLITE[kind](kind, str(tmp_path / "checkpoints.db"))))


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", POSTGRES, ids=lambda kind: kind.__name__)
def test_postgres(check: Check, kind: type[Any], own_database: str) -> None:
    """Savers and stores over PostgreSQL refuse strangers, and keep working for their owner."""
    check(set_up(POSTGRES[kind](kind, own_database)))


def test_synchronous_methods_may_be_called_anywhere_else(tmp_path: Path) -> None:
    """A saver's synchronous methods bring the work to its loop themselves, and are let through."""
    local = saver(AsyncSqliteSaver, str(tmp_path / "checkpoints.db")).local()
    with LoopRuntime(name="owner") as owner:
        made = owner.run(local.get)
        owner.run(made.setup)
        assert made.get_tuple(CONFIG) is None


def test_a_saver_that_lives_on_no_loop_is_left_as_it_is() -> None:
    """A saver in memory may be used by every loop."""
    local = LoopLocal(InMemorySaver)
    with LoopRuntime(name="owner") as owner, LoopRuntime(name="other") as other:
        made = owner.run(local.get)
        assert type(made) is InMemorySaver
        assert other.run(made.aget_tuple, CONFIG) is None


@pytest.mark.needs("postgres")
def test_a_saver_over_another_loops_pool_is_refused_when_it_is_opened(postgres_url: str) -> None:
    """A saver is no way round the guard of its pool."""
    pools = LoopLocal(lambda: AsyncConnectionPool(postgres_url, min_size=1, max_size=1, open=False))
    with LoopRuntime(name="owner") as owner, LoopRuntime(name="stranger") as stranger:
        pool = owner.run(pools.get)
        savers = LoopLocal(lambda: AsyncPostgresSaver(pool))
        with pytest.raises(WrongLoopError, match="AsyncConnectionPool"):
            stranger.run(savers.get)
        assert isinstance(owner.run(savers.get), AsyncPostgresSaver)
