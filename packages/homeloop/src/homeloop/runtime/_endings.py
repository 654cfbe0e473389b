"""The end of a loop: what is done on it before it closes, last registered first, whoever owns it."""

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from weakref import WeakKeyDictionary

from homeloop._affinity import Affinity
from homeloop._events import logger
from homeloop.runtime._fork import forget_in_child, keep_untouched
from homeloop.runtime._probe import loop_affinity

Close = Callable[[], Awaitable[None]]
Lost = Callable[[], None]

LAST_CHANCE = 0.1
"""Seconds that each closer still gets when the end is cancelled because its time is over. A guess."""


class Ending:
    """
    What is to be done before one loop closes.

    It needs no cooperation of the loop's owner: a started asynchronous generator is parked on the
    loop, and `asyncio.run`, uvicorn, pytest plugins and our own runtimes all await
    ``loop.shutdown_asyncgens()`` before they close a loop. That closes the generator, and the
    generator calls the closers, on the loop and while it still runs.

    Attributes:
        affinity: The loop.
        begun: Whether the end has begun. It is set before the first closer is called and stays set.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.affinity: Affinity = loop_affinity(loop)
        # Asyncio's own loops tell when it is too late: nothing parked now would ever be closed.
        self.begun: bool = getattr(loop, "_asyncgens_shutdown_called", False)
        self._closers: dict[int, tuple[Close, Lost]] = {}
        self._numbers = itertools.count()
        self._parked: AsyncGenerator[None, None] | None = None
        if not self.begun:
            self._park()

    def add(self, close: Close, lost: Lost) -> Callable[[], None]:
        """
        Have ``close`` awaited on the loop before it closes, before everything that was added earlier.

        When the end has no time left, ``close`` is cancelled; it reports that itself. ``lost`` is
        called instead, on any thread, when it is noticed that the loop was closed without an end.

        Returns:
            A function that takes both back; calling it twice is harmless.

        Thread: the loop's own; the returned function on any.
        """
        number = next(self._numbers)
        self._closers[number] = (close, lost)
        return lambda: self._take(number)

    def lose(self) -> None:
        """Tell everyone that the loop was closed without an end."""
        while self._closers:
            self._closers.popitem()[1][1]()

    def _take(self, number: int) -> None:
        self._closers.pop(number, None)

    def _park(self) -> None:
        self._parked = self._close_at_end()
        try:
            self._parked.__anext__().send(None)  # its first step does not wait
        except StopIteration:
            pass

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.begun = True
            try:
                await self._close_all()
            finally:
                self._parked = None  # it refers to the loop, which may go now

    async def _close_all(self) -> None:
        cancelled: asyncio.CancelledError | None = None
        while self._closers:
            close, _ = self._closers.popitem()[1]
            try:
                async with asyncio.timeout(None if cancelled is None else LAST_CHANCE):
                    await close()
            except asyncio.CancelledError as error:
                cancelled = error  # one that hangs must not keep the others from closing
            except TimeoutError:
                pass  # it knows, and has told so
            except Exception:
                logger.exception("something on %s did not close", self.affinity)
        if cancelled is not None:
            raise cancelled


class _Endings:
    """The endings of this process's loops."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Ending] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> Ending:
        ending = self._by_loop.get(loop)
        if ending is None:
            self.notice_closed()
            ending = Ending(loop)
            with self._lock:
                self._by_loop[loop] = ending
                forget_in_child(self)
        return ending

    def notice_closed(self) -> None:
        with self._lock:
            closed = [self._by_loop.pop(loop) for loop in list(self._by_loop) if loop.is_closed()]
        for ending in closed:
            ending.lose()

    def forget_parent(self) -> None:
        """Start anew in a forked child; the parent's loops stay the parent's."""
        keep_untouched(self._by_loop)
        self._by_loop = WeakKeyDictionary()
        self._lock = threading.Lock()


_endings = _Endings()


def loop_ending(loop: asyncio.AbstractEventLoop) -> Ending:
    """
    Return the ending of the running loop; the first call parks its generator there.

    Thread: the loop's own, while it runs.
    """
    return _endings.of(loop)


def notice_closed_loops() -> None:
    """Tell those who registered with loops that were closed without an end. Thread: any."""
    _endings.notice_closed()
