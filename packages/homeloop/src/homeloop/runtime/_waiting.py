"""How callers wait: a thread on a bell or a lock, a greenlet in its hub, a coroutine on its loop's future."""

import asyncio
import math
import select
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol
from weakref import WeakSet

from homeloop.errors import RuntimeDiedError
from homeloop.runtime._bell import Bell
from homeloop.runtime._fork import STAYED, forget_in_child
from homeloop.runtime._greenlets import GreenWaiter, green_hub, make_hub
from homeloop.runtime._hosts import raise_if_host_cancelled, sheltered
from homeloop.runtime._originals import allocate_lock, threads_are_replaced

_NOTICE = 0.5
"""Seconds between looks for what cannot wake a waiting thread: an exception that was injected into it
(PyThreadState_SetAsyncExc), the cancellation of the AnyIO task it works for, a signal that came in the
moment before it fell asleep."""

_MOST_BELLS = 32
"""Descriptors that waiting threads may take altogether; threads beyond that wait on locks. A guess."""


class Owner(Protocol):
    """
    Who will wake a waiter.

    Attributes:
        name: For people: the runtime's.
        inherited: Whether it is a parent process's, of which this one has a copy.
    """

    name: str
    inherited: bool


class LockWaiter:
    """
    How a thread waits for one answer: `wake` is called once, on any thread, `wait` on its own.

    Sleeping is all that kinds of waiters differ in.
    """

    wake: Callable[[], object]
    sleep: Callable[[float], bool]  # at most so many seconds; tells whether woken

    def __init__(self) -> None:
        lock = allocate_lock()
        lock.acquire()
        self.wake = lock.release
        self.sleep = lambda seconds: lock.acquire(True, seconds)

    def wait(self, timeout: float | None, owner: Owner | None = None) -> bool:
        """
        Wait at most ``timeout`` seconds; tell whether woken. May be called again after a False.

        Exceptions from outside surface meanwhile.

        Raises:
            RuntimeDiedError: This is a child, forked by the waiting thread (in a signal handler), and the owner of
                what it waits for has stayed with the parent process.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.sleep(min(_NOTICE, max(0.0, deadline - time.monotonic()))):
            if owner is not None and owner.inherited:
                raise RuntimeDiedError(owner.name, STAYED)
            if time.monotonic() >= deadline:
                return False
            raise_if_host_cancelled()
        return True


class BellWaiter(LockWaiter):
    """
    Waits at half the price of a lock, see `Bell`; used up, it is put away for the next one who waits.

    Only ``_answered`` counts: a bell may ring for nothing, late or in a forked child.
    """

    def __init__(self) -> None:
        self._bell = Bell()
        poll = select.poll()
        poll.register(self._bell.fd, select.POLLIN)
        self._poll = poll.poll
        self._answered = False

    def wake(self) -> None:
        """Let `wait` return."""
        self._answered = True
        self._bell.ring()

    def sleep(self, seconds: float) -> bool:
        """Sleep until woken, at most ``seconds``; tell whether woken. Then the waiter is used up."""
        if self._poll(seconds * 1000) or self._answered:
            self._bell.hush()
            if self._answered:
                self._answered = False
                _waiters.idle.append(self)
                return True
        return False


class _Waiters:
    """The waiters of this process's threads. Thread: any."""

    def __init__(self) -> None:
        self.idle: list[BellWaiter] = []
        self._alive: WeakSet[BellWaiter] = WeakSet()
        forget_in_child(self)

    def make(self) -> LockWaiter:
        if len(self._alive) < _MOST_BELLS and not threads_are_replaced():  # for then `select` is replaced, too
            try:
                made = BellWaiter()
            except (AttributeError, OSError):  # not on this platform, not in this process
                return LockWaiter()
            self._alive.add(made)
            return made
        return LockWaiter()

    def forget_parent(self) -> None:
        """Forget, in a forked child, the bells that ring in the parent, too."""
        self.idle.clear()
        self._alive = WeakSet()


_waiters = _Waiters()

Waiter = LockWaiter | GreenWaiter


def new_waiter() -> Waiter:
    """Return what the caller is to wait with, for one answer. Thread: the one that will wait."""
    if "gevent" in sys.modules or "eventlet" in sys.modules:
        hub = green_hub()
        if hub is not None:
            return GreenWaiter(hub)
    try:
        return _waiters.idle.pop()
    except IndexError:
        return _waiters.make()


def wait_done(future: "Future[Any]", timeout: float | None) -> bool:
    """Wait at most ``timeout`` seconds for a future that any thread may complete; tell whether it is done."""
    waiter = new_waiter()
    future.add_done_callback(lambda _: waiter.wake())
    return waiter.wait(timeout)


def completed_in_hub(complete: Callable[[], object]) -> Callable[[], object]:
    """
    Return a function to be called once, on any thread, which calls ``complete`` to complete a future.

    Greenlets wait for several futures by the patched means of their own thread, so in a hub's thread that
    is where it is completed. Elsewhere ``complete`` is called as it is.

    Thread: the one that makes the future, before anybody else sees it.
    """
    if "gevent" in sys.modules or "eventlet" in sys.modules:
        # A loop's own thread may have a hub that never runs, and nobody blocks on a future there. On others the
        # first greenlet may come after the future.
        hub = None if asyncio._get_running_loop() is not None else make_hub()
        if hub is not None:
            return hub.call_later(complete)
    return complete


def answer(loop: asyncio.AbstractEventLoop, answered: "asyncio.Future[None]") -> None:
    """Wake the coroutine that waits on another loop. Thread: any."""
    try:
        loop.call_soon_threadsafe(set_done, answered)
    except RuntimeError:  # the waiting loop is closed: nobody waits any more
        pass


def set_done(answered: "asyncio.Future[None]") -> None:
    """Wake the coroutine that waits, unless it is awake."""
    if not answered.done():
        answered.set_result(None)


async def outlast(future: "asyncio.Future[Any]", grace: float | None = None) -> asyncio.CancelledError | None:
    """
    Wait for a clean-up although the running task is cancelled, at most ``grace`` seconds; None for ever.

    Returns:
        The cancellation that came meanwhile, the last of several; the caller raises it when it has done its part.
    """
    cancelled: asyncio.CancelledError | None = None
    deadline = math.inf if grace is None else time.monotonic() + grace
    try:
        with sheltered():
            while not future.done() and (left := deadline - time.monotonic()) > 0:
                try:
                    await asyncio.wait((future,), timeout=None if grace is None else left)
                except asyncio.CancelledError as error:
                    cancelled = error
        return cancelled
    finally:
        del cancelled  # or its traceback's frame and the error would keep each other alive
