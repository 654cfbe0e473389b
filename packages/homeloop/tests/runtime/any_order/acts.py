"""What calls do: functions that are led from outside, and that tell what became of them."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto

from loops import LoopMaker, Meter

BOUND = 30.0  # seconds; tells a hang from an answer


class Thing:
    """Something whose end can be watched; arguments, results and values of variables are such things."""

    __slots__ = ("__weakref__",)


user: contextvars.ContextVar[Thing | None] = contextvars.ContextVar("user", default=None)


class BoomError(Exception):
    """What a function raises."""


class LateError(TimeoutError):
    """A time-out of the function's own, which is not the call's."""


class Ending(Enum):
    """How a function ends when it is told to."""

    VALUE = auto()
    BOOM = auto()
    LATE = auto()
    EXIT = auto()
    CANCELLED = auto()


class OnCancel(Enum):
    """What a function makes of its cancellation."""

    OBEY = auto()
    CLEAN_UP = auto()  # in some steps of the loop
    LINGER = auto()  # clean up until it is let go
    STAY = auto()  # ignore it
    RETURN = auto()
    FAIL = auto()


STUBBORN = (OnCancel.LINGER, OnCancel.STAY)


class Act:
    """
    One call's function: `perform` waits for an order, unless it has it from the start.

    Attributes:
        begun, cancelled, ended: What has happened to it.
        news: Set with each of them, and when its caller was answered.
        how: What it ended with; "dropped" if its loop did not run it to its end.
        changed: What it set the context variable to.
    """

    def __init__(self, loops: LoopMaker, on_cancel: OnCancel, ending: Ending | None = None, hops: int = 1) -> None:
        # What has its order has nobody who lets it go.
        self.on_cancel = OnCancel.CLEAN_UP if ending and on_cancel is OnCancel.LINGER else on_cancel
        self.begun, self.cancelled, self.ended, self.news = (threading.Event() for _ in range(4))
        self.times_begun = self.times_cancelled = 0
        self.how: str | None = None
        self.changed = Thing()
        self.heard_context = True
        self.loop: asyncio.AbstractEventLoop | None = None
        self.on_begin: Callable[[], object] | None = None
        self._loops = loops
        self._order = ending
        self._hops = hops
        self._let_go = False
        self._wakeup: asyncio.Event

    def __repr__(self) -> str:
        return f"{self.on_cancel.name} {self._order.name if self._order else 'parked'} {self.how or ''}"

    @property
    def ends_when_cancelled(self) -> bool:
        """Whether its cancellation ends it, and nobody need do more."""
        return self.on_cancel not in STUBBORN or self._let_go

    def check(self) -> None:
        """Fail if it was not treated as a call is to be treated."""
        assert self.times_begun <= 1, f"{self!r} was begun {self.times_begun} times"
        assert self.times_cancelled <= 1, f"{self!r} was cancelled {self.times_cancelled} times"
        assert self.heard_context, f"{self!r} did not see its caller's context"

    @property
    def ends_itself(self) -> bool:
        """Whether it has its order."""
        return self._order is not None

    # -- from outside -------------------------------------------------------------------------------

    def order(self, ending: Ending) -> None:
        """Tell it how to end, once it has begun, cancelled or not. Thread: any."""
        self._order = ending
        self.let_go()

    def let_go(self) -> None:
        """Let its clean-up end. Thread: any."""
        self._let_go = True
        loop = self.loop
        if loop is not None and not self.ended.is_set():
            try:
                loop.call_soon_threadsafe(self._wakeup.set)
            except RuntimeError:  # its loop has ended
                pass

    def relent(self) -> None:
        """Have it end at its next cancellation, or now if it was cancelled before. Thread: any."""
        if self.on_cancel is OnCancel.STAY:
            self.on_cancel = OnCancel.CLEAN_UP
        if self.cancelled.is_set():
            self.order(Ending.VALUE)
        else:
            self.let_go()

    # -- on the loop ----------------------------------------------------------------------------------

    async def perform(self, gift: Thing) -> Thing:
        """Do as ordered with the argument."""
        meter = self._begin(gift)
        try:
            result = await self._perform(gift)
            self.how = "value"
            return result
        except BaseException as error:
            self.how = "dropped" if isinstance(error, GeneratorExit) else type(error).__name__
            raise
        finally:
            meter.leave()
            self.ended.set()
            self.news.set()

    def _begin(self, gift: Thing) -> Meter:
        self._wakeup = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.times_begun += 1
        self.heard_context = user.get() is gift
        user.set(self.changed)
        meter: Meter = self._loops.meter
        meter.enter()
        self.begun.set()
        self.news.set()
        if self.on_begin is not None:
            self.on_begin()
        return meter

    async def _perform(self, gift: Thing) -> Thing:
        for _ in range(self._hops):
            await self._pause(asyncio.sleep(0), gift)
            if self.cancelled.is_set() and self.on_cancel is OnCancel.RETURN:
                return gift
        while (order := self._order) is None:
            await self._pause(self._wakeup.wait(), gift)
            self._wakeup.clear()
            if self.cancelled.is_set() and self.on_cancel is OnCancel.RETURN:
                return gift
        match order:
            case Ending.VALUE:
                return gift
            case Ending.BOOM:
                raise BoomError(gift)
            case Ending.LATE:
                raise LateError(gift)
            case Ending.EXIT:
                raise SystemExit(gift)
            case Ending.CANCELLED:
                raise asyncio.CancelledError

    async def _pause(self, awaitable: Awaitable[object], gift: Thing) -> None:
        try:
            await awaitable
        except asyncio.CancelledError:
            self._notice_cancel()
            match self.on_cancel:
                case OnCancel.STAY | OnCancel.RETURN:
                    return
                case OnCancel.FAIL:
                    raise BoomError(gift) from None
                case OnCancel.CLEAN_UP:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                case OnCancel.LINGER:
                    while not self._let_go:
                        try:
                            await self._wakeup.wait()
                        except asyncio.CancelledError:
                            self._notice_cancel()
                        self._wakeup.clear()
            raise

    def _notice_cancel(self) -> None:
        self.times_cancelled += 1
        self.cancelled.set()
        self.news.set()


class Tale:
    """
    An async generator and a context manager that tell of themselves.

    Attributes:
        hung: Set when the generator waits before its second item, for `go_on`.
        on_hang: Called then.
        ended: Set at the end of the clean-up.
    """

    ITEMS = 3

    def __init__(self, loops: LoopMaker, fails: bool, hangs: bool = False) -> None:
        self.fails, self.hangs = fails, hangs
        self.hung, self.ended = threading.Event(), threading.Event()
        self.on_hang: Callable[[], object] | None = None
        self.times_cancelled = 0
        self.changed = Thing()
        self.in_one_task = True
        self._loops = loops
        self._go_on: asyncio.Event

    def go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the generator give its second item. Thread: any."""
        loop.call_soon_threadsafe(self._go_on.set)

    async def items(self, gift: Thing) -> AsyncIterator[Thing]:
        """Yield the argument three times; then fail, or do not."""
        async with self._telling():
            for number in range(self.ITEMS):
                if self.hangs and number == 1:
                    await self._hang(gift)
                yield gift
            if self.fails:
                raise BoomError(gift)

    @asynccontextmanager
    async def manage(self, gift: Thing) -> AsyncIterator[Thing]:
        """Give the argument; swallow what the body raises, or do not."""
        async with self._telling():
            try:
                yield gift
            except BoomError:
                if self.fails:
                    raise

    @asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        task, meter = asyncio.current_task(), self._loops.meter
        user.set(self.changed)
        meter.enter()
        try:
            yield
        finally:
            self.in_one_task = asyncio.current_task() is task and user.get() is self.changed
            try:
                await asyncio.sleep(0)
            finally:
                meter.leave()
                self.ended.set()

    async def _hang(self, gift: Thing) -> None:
        self._go_on = asyncio.Event()
        self.hung.set()
        if self.on_hang is not None:
            self.on_hang()
        try:
            await self._go_on.wait()
        except asyncio.CancelledError:
            self.times_cancelled += 1
            for _ in range(5):
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    self.times_cancelled += 1
            if self.fails:
                raise BoomError(gift) from None
            raise
