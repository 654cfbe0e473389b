"""Lending: a bounded number of kept things, each lent to one borrower at a time, in order of asking."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from homeloop.errors import CallTimeoutError, ExecutorClosedError
from homeloop.isolation._tier import Work, scope_left
from homeloop.runtime import RLock, forget_in_child

T = TypeVar("T")

# Any: of whatever they lend.
_inside: ContextVar["frozenset[Lending[Any]]"] = ContextVar("homeloop lendings", default=frozenset())
"""The lendings whose borrowers the running code works for: it needs no further place in them."""


def enter(lending: "Lending[Any]") -> None:
    """Note that the code that runs in the current context works for a borrower."""
    _inside.set(_inside.get() | {lending})


class Lending(Generic[T]):
    """
    Lends at most ``size`` things at a time; who waits is served in order, on whatever loop.

    What a borrower's own work borrows again takes no place: they could wait for each other for ever.

    Args:
        executor: The name of whose things are lent, for errors.
        size: How many at a time.
        on_keep: Called when there is one more thing that may become idle.

    Thread: any.
    """

    def __init__(self, executor: str, size: int, on_keep: Callable[[], object]) -> None:
        self.size = size
        self.lent = 0
        self.is_closed = False
        self._executor = executor
        self._on_keep = on_keep
        self._kept: list[tuple[T, float]] = []  # the last one came back last: the others may go
        self._waiting: deque[_Turn] = deque()
        self._lock = RLock()  # re-entered by the garbage collector, which may throw away whoever waits
        forget_in_child(self)

    @property
    def kept(self) -> int:
        """How many things wait to be lent."""
        return len(self._kept)

    async def borrow(self) -> "Place[T]":
        """
        Wait for a place.

        Raises:
            ExecutorClosedError: Nothing is lent any more.

        Cancellation: gives up the turn.
        """
        is_inside = self in _inside.get()
        with self._lock:
            if self.is_closed:
                raise ExecutorClosedError(self._executor)
            if is_inside:
                return Place(self, counted=False)
            if self.lent < self.size:
                self.lent += 1
                return Place(self, counted=True)
            turn = _Turn(asyncio.get_running_loop())
            self._waiting.append(turn)
        try:
            await turn.come
        except BaseException:  # cancelled, or thrown away with its loop
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
            if turn.served:
                self.give_place()
            raise
        return Place(self, counted=True)

    def take(self) -> T | None:
        """Take a kept thing; None if there is none, so that the borrower makes one."""
        with self._lock:
            return self._kept.pop()[0] if self._kept else None

    def keep(self, thing: T) -> None:
        """Keep a thing for the next borrower."""
        with self._lock:
            self._kept.append((thing, time.monotonic()))
        self._on_keep()

    def give_place(self) -> None:
        """Let the next one have a place."""
        with self._lock:
            while self._waiting and not self.is_closed:
                if self._waiting.popleft().serve():
                    return
            self.lent -= 1

    def close(self) -> None:
        """Lend nothing any more, and tell those who wait. Idempotent."""
        with self._lock:
            self.is_closed = True
            for turn in tuple(self._waiting):  # each takes itself out
                turn.refuse(self._executor)

    def take_idle(self, seconds: float) -> list[T]:
        """Take out what has not been lent for so many seconds."""
        bound = time.monotonic() - seconds
        with self._lock:
            idle = [thing for thing, since in self._kept if since <= bound]
            self._kept = [(thing, since) for thing, since in self._kept if since > bound]
        return idle

    def drop(self, thing: T) -> None:
        """Do not lend a kept thing any more: it is broken."""
        with self._lock:
            self._kept = [each for each in self._kept if each[0] is not thing]

    def forget_parent(self) -> None:
        """Have nothing, in a forked child. Called by the fork hook."""
        self._lock = RLock()
        self._kept = []
        self._waiting = deque()
        self.lent = 0


class Place(Generic[T]):
    """A borrower's place; give it back once."""

    def __init__(self, lending: Lending[T], counted: bool) -> None:
        self._lending = lending
        self._counted = counted

    def give_back(self) -> None:
        """Let the next one have it. Idempotent."""
        if self._counted:
            self._counted = False
            self._lending.give_place()


class _Turn:
    """
    One who waits for a place.

    Attributes:
        come: Done when it has come.
        served: Whether the place is its own by now, if only just: ``come`` is still to be told of it.

    Thread: made on a loop's; `serve` and `refuse` on any, under the lending's lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.come: asyncio.Future[None] = loop.create_future()
        self.served = False
        self._loop = loop

    def serve(self) -> bool:
        """Give it a place; tell whether it can still take one."""
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:  # its loop is closed
            return False
        self.served = True
        return True

    def refuse(self, executor: str) -> None:
        """Tell it that it waits in vain."""
        try:
            self._loop.call_soon_threadsafe(self._tell, executor)
        except RuntimeError:  # its loop is closed
            pass

    def _tell(self, refused_by: str | None = None) -> None:
        if self.come.done():  # it was cancelled; if it was served, it has seen to it that the next one is
            return
        if refused_by is None:
            self.come.set_result(None)
        else:
            self.come.set_exception(ExecutorClosedError(refused_by))


class Lease(Generic[T]):
    """
    What a scope has been lent, for one run after the other or several at a time.

    Attributes:
        runs: How many runs are in it.
        fit: Whether the next scope may have it.
        over: Whether it goes back when its last run leaves.
    """

    def __init__(self, place: Place[T], thing: T) -> None:
        self.place = place
        self.thing = thing
        self.runs = 0
        self.fit = True
        self.over = False


class Borrower(ABC, Generic[T]):
    """
    A scope that borrows a thing, which its runs share.

    A place has one owner after the other, who gives it back: who waits for his turn, `take`, then the lease.

    Thread: made on any, used on one loop's.
    """

    def __init__(self, lending: Lending[T]) -> None:
        self.lease: Lease[T] | None = None
        self._lending = lending
        self._lock = asyncio.Lock()
        self._leases: set[Lease[T]] = set()
        self._joining: set[asyncio.Timeout] = set()  # the limits of the runs that wait in `join`
        self._over = False

    @abstractmethod
    async def take(self, work: Work, place: Place[T]) -> T:
        """Return a thing for a place; if this raises, have the place given back, now or when it is free."""

    @abstractmethod
    def give_back(self, lease: Lease[T]) -> None:
        """Give back what was lent; called once for each lease."""

    def open_to_callback(self, work: Work) -> None:
        """Have what the work's callback borrows take no place: the work waits for it."""
        if work.progress.context is not None:
            work.progress.context.run(enter, self._lending)

    async def join(self, work: Work) -> Lease[T]:
        """
        Return what the scope has been lent, for one more run; borrow it first, if need be.

        Raises:
            CallTimeoutError: The work's time is over. What it has waited is taken off what is left of it.
            RuntimeError: The scope was left meanwhile.
        """
        asked = time.monotonic() - work.waited
        limit = asyncio.timeout(work.left)
        try:
            async with limit:
                self._joining.add(limit)
                try:
                    async with self._lock:  # the scope's runs may come two at a time
                        if self._over:
                            raise scope_left(work)
                        lease = self.lease or await self._borrow(work, limit, asked)
                        lease.runs += 1
                finally:
                    self._joining.discard(limit)
        except TimeoutError as error:
            if not limit.expired():
                raise
            if self._over:
                raise scope_left(work) from None
            why = f"it waited for its turn, {self._lending.size} at a time"
            raise CallTimeoutError(work.name, work.timeout or 0.0, never_began=why) from error
        work.waited = time.monotonic() - asked
        return lease

    async def _borrow(self, work: Work, limit: asyncio.Timeout, asked: float) -> Lease[T]:
        place = await self._lending.borrow()
        if not self._over:  # else it passes in `take`
            limit.reschedule(None)  # which keeps to the time that is left, and tells what it was waiting for
        work.waited = time.monotonic() - asked
        lease = Lease(place, await self.take(work, place))
        self._leases.add(lease)
        if self._over:  # it has come in the moment in which the scope was left
            self._end(lease)
            raise scope_left(work)
        self.lease = lease
        return lease

    def leave(self, lease: Lease[T], last: bool) -> None:
        """Note that a run has left; give back what is over when it was the last one in it."""
        lease.runs -= 1
        if last:
            lease.over = True
        if lease.over:
            self.spend(lease)

    def spend(self, lease: Lease[T]) -> None:
        """Have the scope's next run get another one; those that are in this one go on."""
        lease.over = True
        if self.lease is lease:
            self.lease = None
        if not lease.runs:
            self._end(lease)

    def turn_away(self) -> None:
        """Let no further run in: those that wait to join raise. Idempotent."""
        self._over = True
        for limit in self._joining:
            if not limit.expired():  # a limit that passes is a cancellation which the run itself makes an error of
                limit.reschedule(asyncio.get_running_loop().time())

    def end_leases(self) -> None:
        """Give everything back, whatever runs there. Idempotent."""
        for lease in tuple(self._leases):
            self.spend(lease)
            self._end(lease)

    def drop_leases(self) -> None:
        """Give back the places only: what was lent has ended, and so has the loop that it was used on."""
        for lease in self._leases:
            lease.place.give_back()
        self._leases.clear()

    def _end(self, lease: Lease[T]) -> None:
        if lease in self._leases:
            self._leases.remove(lease)
            self.give_back(lease)
