"""What the tests of graphs need: a database with LangGraph's tables, an executor that is kept."""

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

APPS = Path(__file__).parent / "apps"
if str(APPS) not in sys.path:
    sys.path.insert(0, str(APPS))  # workers get this process's path

from graph_runs import go, thread  # noqa: E402 - found by now

from homeloop import Event, IsolationExecutor, add_instrument  # noqa: E402
from homeloop.adapters.langgraph import LangGraphEventLoopManager  # noqa: E402
from homeloop.adapters.langgraph._processes import PRELOAD  # noqa: E402
from homeloop.adapters.langgraph.postgres import set_up  # noqa: E402


@pytest.fixture
def kept_threads() -> tuple[str, ...]:
    """The kept manager's thread may get helpers."""
    return ("homeloop-graphs",)


@pytest.fixture(scope="session")
def new_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Make empty databases, dropped in the end."""
    names: list[str] = []

    def make() -> str:
        names.append(f"homeloop_test_{uuid.uuid4().hex[:12]}")
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(names[-1])))
        return urlsplit(postgres_url)._replace(path=f"/{names[-1]}").geturl()

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def dsn(new_database: Callable[[], str]) -> Iterator[str]:
    """A database with LangGraph's tables, which the graphs of graph_work use, in other processes too."""
    url = new_database()
    asyncio.run(set_up(url))
    os.environ["GRAPH_DSN"] = url
    sys.modules.pop("graph_work", None)
    yield url
    del os.environ["GRAPH_DSN"]


@pytest.fixture(scope="session")
def work(dsn: str) -> Any:
    """The graphs."""
    import graph_work

    return graph_work


@pytest.fixture(scope="package")
def manager(work: Any) -> Iterator[LangGraphEventLoopManager]:
    """A manager of one thread and one process, both started, kept for all tests."""
    executor = IsolationExecutor(name="graphs", max_threads=1, max_processes=1, preload=PRELOAD)
    kept = LangGraphEventLoopManager(executor)
    for options in ({}, {"use_process_isolation": True}):  # their loops' executors, too
        begin = {"n": 0, "places": []}
        go(partial(kept.run, work.adding.ainvoke, begin, thread(), options=options))
    yield kept
    kept.close()


@pytest.fixture
def heard() -> Iterator[Callable[[type[Event]], list[Any]]]:
    """Return the events of a type that happened in the test."""

    class Ear:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def notify(self, event: Event) -> None:
            self.events.append(event)

    ear = Ear()
    leave = add_instrument(ear)
    yield lambda kind: [event for event in ear.events if isinstance(event, kind)]
    leave()
