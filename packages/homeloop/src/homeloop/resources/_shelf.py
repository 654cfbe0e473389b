"""The shelf of a loop: what was opened on it, closed on it when it ends, last opened first."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from homeloop._affinity import Affinity
from homeloop._events import ResourceDropped, emit
from homeloop.runtime import forget_in_child, keep_untouched, loop_affinity


class Shelf:
    """
    What lives on one loop, by owner.

    It needs no cooperation of the loop's owner: a started asynchronous generator is parked on the
    loop, and `asyncio.run`, uvicorn, pytest plugins and our own runtimes all await
    ``loop.shutdown_asyncgens()`` before they close a loop. That closes the generator, and the
    generator closes the shelf, on the loop and while it still runs.

    Thread: the loop's own, throughout.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.affinity: Affinity = loop_affinity(loop)
        self.entries: dict[object, Any] = {}  # Any: each owner knows the type of its own entry
        self._closers: dict[object, Callable[[], Awaitable[None]]] = {}
        self._parked: AsyncGenerator[None, None] | None = None
        self.ended = False

    async def park(self) -> None:
        """Have the shelf closed when the loop ends. Does not give way to other tasks."""
        self._parked = self._close_at_end()
        await anext(self._parked)

    def put(self, owner: object, entry: object, close: Callable[[], Awaitable[None]]) -> None:
        """Keep an entry; ``close`` is awaited on this loop, after everything that was put later."""
        self.entries[owner] = entry
        self._closers[owner] = close

    def take(self, owner: object) -> None:
        """Forget an entry without closing it."""
        self.entries.pop(owner, None)
        self._closers.pop(owner, None)

    def drop(self) -> None:
        """Let everything go, unclosed: the loop is closed, and another one must not await its resources."""
        for owner in self._closers:
            emit(ResourceDropped(str(owner), self.affinity))
        self.entries.clear()
        self._closers.clear()

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.ended = True
            while self._closers:
                await self._closers[next(reversed(self._closers))]()
            self._parked = None  # it refers to the loop, which may go now


class _Shelves:
    """Every loop's shelf in this process."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Shelf] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def find(self, loop: asyncio.AbstractEventLoop) -> Shelf | None:
        return self._by_loop.get(loop)

    def add(self, loop: asyncio.AbstractEventLoop) -> Shelf:
        """Make the loop's shelf, and drop those whose loops were closed without closing them."""
        shelf = Shelf(loop)
        with self._lock:
            dead = [each for each in self._by_loop if each.is_closed()]
            dropped = [self._by_loop.pop(each) for each in dead]
            self._by_loop[loop] = shelf
            forget_in_child(self)
        for each in dropped:
            each.drop()
        return shelf

    def all(self) -> dict[asyncio.AbstractEventLoop, Shelf]:
        with self._lock:
            return dict(self._by_loop)

    def forget_parent(self) -> None:
        """Start anew in a forked child; the parent's pools stay the parent's."""
        keep_untouched(self._by_loop)
        self._by_loop = WeakKeyDictionary()
        self._lock = threading.Lock()


shelves = _Shelves()
