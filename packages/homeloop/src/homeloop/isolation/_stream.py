"""Streams: the items of an async generator that runs in a tier, one at a time, by the way of its reports."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from homeloop.isolation._function import generator
from homeloop.isolation._progress import AnyReport, Callback, Hearer, Progress, begin_reporting
from homeloop.runtime import callable_name, outlast

T = TypeVar("T")

_ITEM, _PROGRESS = "item", "progress"


async def stream(
    run: Callable[..., Awaitable[None]],
    fn: Callable[..., AsyncGenerator[T, None]],
    args: tuple[Any, ...],
    on_progress: Callback | None,
) -> AsyncGenerator[T, None]:
    """Yield what ``fn(*args)`` yields inside ``run``; it goes on only when the next item is asked for."""
    items: asyncio.Queue[tuple[T, asyncio.Future[None]] | None] = asyncio.Queue()
    progress = Progress(on_progress)
    closed = False

    async def hear(what: str, *reported: Any) -> None:
        nonlocal closed
        if what == _PROGRESS:
            progress.context = copy_context()  # the callback of a stream is one of the run
            delivery = progress.send(*reported)
            try:
                if delivery is not None:
                    await delivery
            except asyncio.CancelledError:
                await progress.end(None)  # bounded by who has cancelled this
                raise
            return
        if closed:
            return
        wanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        items.put_nowait((reported[0], wanted))
        try:
            await wanted
        except asyncio.CancelledError:
            closed = True  # the run ends, or the loop: whoever left without closing has no use for an error

    module, _, what = callable_name(fn).removesuffix("()").partition(".")
    hear.__module__, hear.__qualname__ = module, f"{what}'s consumer"  # what a time-out tells that waits for it
    running = asyncio.ensure_future(run(_Pump(fn), *args, on_progress=Hearer(hear, on_error="raise")))
    running.add_done_callback(lambda _: items.put_nowait(None))
    try:
        while (given := await items.get()) is not None:
            item, wanted = given
            yield item
            if not wanted.done():  # else the run has ended meanwhile
                wanted.set_result(None)
        running.result()
    finally:
        if not running.done():
            running.cancel()
            await _end(running)
        closed = True


async def _end(running: "asyncio.Future[None]") -> None:
    cancelled = await outlast(running)
    if not running.cancelled():
        running.result()
    if cancelled is not None:
        raise cancelled


class _Pump:
    """Iterates a generator where it is called; errors and events name it after the generator's function."""

    def __init__(self, fn: Callable[..., AsyncGenerator[Any, None]]) -> None:
        self._name = callable_name(fn)
        self.__module__, _, name = self._name.partition(".")
        self.__qualname__ = name.removesuffix("()")
        self._make: Any = fn  # Any: it returns a generator, where others return something to await

    async def __call__(self, *args: Any, report: AnyReport) -> None:
        call: Any = begin_reporting(self._make, args, partial(report, _PROGRESS))
        async with aclosing(generator(call(), self._name)) as items:
            async for item in items:
                await report(_ITEM, item)
