"""The guard of SQLAlchemy's engines passes the conformance kit, over three drivers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from homeloop import LoopRuntime
from homeloop.errors import WrongLoopError
from homeloop.testing import CHECKS, Part, Subject

ONE = text("select 1")
SLOW = text("select pg_sleep(10)")
DRIVERS = ("asyncpg", "psycopg")
Check = Callable[[Subject[Any]], None]


async def select(engine: AsyncEngine, query: Any = ONE) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar()


async def begin(engine: AsyncEngine) -> None:
    async with engine.begin():
        pass


async def session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as made:
        await made.execute(ONE)


async def with_options(engine: AsyncEngine) -> None:
    await select(engine.execution_options(isolation_level="AUTOCOMMIT"))


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[Any]:
    async with engine.connect() as connection, connection.begin() as begun:
        yield begun


async def use_transaction(begun: Any) -> None:
    assert (await begun.connection.execute(ONE)).scalar() == 1


async def stream(connection: AsyncConnection) -> None:
    async with connection.stream(ONE):
        pass


def engine_over(url: str) -> Subject[Any]:
    return Subject(
        factory=lambda: create_async_engine(url, pool_size=20),
        kind=AsyncEngine,
        close=lambda engine: engine.dispose(),
        use=select,
        slow=lambda engine: select(engine, SLOW),
        entries={
            "connect": select,
            "begin": begin,
            "session": session,
            "options": with_options,
            "raw_connection": lambda engine: engine.raw_connection(),
            "dispose": lambda engine: engine.dispose(),
        },
        parts={
            "connection": Part(
                open=lambda engine: engine.connect(),
                entries={
                    "execute": lambda connection: connection.execute(ONE),
                    "stream": stream,
                    "run_sync": lambda connection: connection.run_sync(print),
                    "commit": lambda connection: connection.commit(),
                    "close": lambda connection: connection.close(),
                },
                use=lambda connection: connection.execute(ONE),
            ),
            "transaction": Part(
                open=transaction,
                entries={
                    "commit": lambda begun: begun.commit(),
                    "rollback": lambda begun: begun.rollback(),
                },
                use=use_transaction,
            ),
        },
    )


def sessions_over(url: str) -> Subject[Any]:
    async def use(sessions: Any, query: Any = ONE) -> Any:
        async with sessions() as made:
            return await made.scalar(query)

    return Subject(
        factory=lambda: async_sessionmaker(create_async_engine(url, pool_size=20)),
        kind=async_sessionmaker,
        close=lambda sessions: sessions.kw["bind"].dispose(),
        use=use,
        slow=lambda sessions: use(sessions, SLOW),
        entries={"session": use, "engine": lambda sessions: select(sessions.kw["bind"])},
        parts={
            "session": Part(
                open=lambda sessions: sessions(),
                entries={
                    "execute": lambda made: made.execute(ONE),
                    "begin": lambda made: made.begin().start(),
                    "commit": lambda made: made.commit(),
                    "rollback": lambda made: made.rollback(),
                    "close": lambda made: made.close(),
                },
                use=lambda made: made.scalar(ONE),
            )
        },
    )


def asynchronous(postgres_url: str, driver: str) -> str:
    return postgres_url.replace("postgresql:", f"postgresql+{driver}:")


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("subject", [engine_over, sessions_over], ids=["engine", "sessions"])
def test_engine(check: Check, subject: Callable[[str], Subject[Any]], driver: str, postgres_url: str) -> None:
    """Engines and sessionmakers refuse strangers, and keep working for their owner."""
    check(subject(asynchronous(postgres_url, driver)))


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("driver", DRIVERS)
def test_an_engine_stays_guarded_after_it_was_disposed_of(driver: str, postgres_url: str) -> None:
    """dispose() makes a new pool, which refuses strangers as the old one did."""
    local = engine_over(asynchronous(postgres_url, driver)).local()

    async def dispose() -> AsyncEngine:
        engine = await local.get()
        await engine.dispose()
        await session(engine)
        return engine

    with LoopRuntime(name="owner") as owner, LoopRuntime(name="stranger") as stranger:
        engine = owner.run(dispose)
        with pytest.raises(WrongLoopError, match="connect"):
            stranger.run(session, engine)


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_session_of_somebody_elses_making_is_refused_by_its_connection(driver: str, postgres_url: str) -> None:
    """Such a session is not guarded, but what it uses is: the driver is not touched."""
    local = engine_over(asynchronous(postgres_url, driver)).local()

    async def offer(stranger: LoopRuntime) -> None:
        async with AsyncSession(await local.get()) as made:
            await made.execute(ONE)
            with pytest.raises(WrongLoopError):
                await stranger.arun(made.execute, ONE)
            assert await made.scalar(ONE) == 1

    with LoopRuntime(name="owner") as owner, LoopRuntime(name="stranger") as stranger:
        owner.run(offer, stranger)
