"""The runtimes that are weighed: homeloop and its peers, opened one by one, called and closed alike."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from calls import noop

Work = Callable[[], Coroutine[Any, Any, object]]


@dataclass(frozen=True)
class Opened:
    """A runtime, or what a peer has instead. Without ``submit`` all calls block; without ``close`` it stays."""

    run: Callable[[Work], object]
    submit: Callable[[Work], "Future[Any]"] | None
    close: Callable[[], object] | None


async def failing() -> None:
    """The work that fails."""
    raise ValueError("on purpose")


asleep: set[asyncio.Task[Any]] = set()


async def sleeping() -> None:
    """The work that takes long."""
    task = asyncio.current_task()
    assert task is not None
    asleep.add(task)
    try:
        await asyncio.sleep(3600)
    finally:
        asleep.discard(task)


async def all_awake() -> None:
    """Wait until the cancelled sleepers have ended, those that were asked for before this."""
    if asleep:
        await asyncio.wait(asleep)


def _homeloop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Opened:
    from homeloop import LoopRuntime

    runtime = LoopRuntime(name="bench", loop_factory=factory)
    return Opened(runtime.run, runtime.submit, runtime.close)


def _bare(factory: Callable[[], asyncio.AbstractEventLoop]) -> Opened:
    loop = factory()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def submit(work: Work) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work(), loop)

    def close() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    return Opened(lambda work: submit(work).result(), submit, close)


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def _anyio() -> Opened:
    from anyio.from_thread import start_blocking_portal

    opening = start_blocking_portal()
    portal = opening.__enter__()
    return Opened(portal.call, portal.start_task_soon, lambda: opening.__exit__(None, None, None))


def _fsspec() -> Opened:
    from fsspec import asyn

    asyn.loop[0] = None  # it keeps one for the process; so it opens another one
    loop = asyn.get_loop()
    return Opened(lambda work: asyn.sync(loop, work), None, None)


def _synchronicity() -> Opened:
    from synchronicity import Synchronizer

    synchronizer = Synchronizer()
    works: dict[Work, str] = {noop: "blocking_noop", failing: "blocking_failing"}
    blocking = {work: synchronizer.create_blocking(work, name, __name__) for work, name in works.items()}
    return Opened(lambda work: blocking[work](), None, synchronizer._close_loop)


def _dramatiq() -> Opened:
    import logging

    from dramatiq.asyncio import EventLoopThread

    thread = EventLoopThread(logging.getLogger("bench"))
    thread.daemon = True
    thread.start()
    return Opened(lambda work: thread.run_coroutine(work()), None, thread.stop)


PEERS: dict[str, Callable[[], Opened]] = {
    "homeloop": lambda: _homeloop(asyncio.new_event_loop),
    "homeloop on uvloop": lambda: _homeloop(_uvloop),
    "run_coroutine_threadsafe": lambda: _bare(asyncio.new_event_loop),
    "run_coroutine_threadsafe on uvloop": lambda: _bare(_uvloop),
    "anyio portal": _anyio,
    "fsspec loop thread": _fsspec,
    "synchronicity": _synchronicity,
    "dramatiq loop thread": _dramatiq,
}
