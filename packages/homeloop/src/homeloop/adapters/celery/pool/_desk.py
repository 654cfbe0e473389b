"""
Where the asyncio pool keeps its books: one thread at a time decides what starts and hears what has ended.

With a kombu hub that is the hub's thread, the worker's main one, where Celery expects a pool's callbacks:
nothing else changes the worker's state meanwhile. Transports without a hub get a thread for it.
"""

# pyright: basic
# (kombu ships no types: strict mode would complain of every value that comes from it.)

import socket
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from kombu.message import Message

from homeloop.adapters.celery.pool._threads import Threads, Work, call

_TICK = 0.2
"""Seconds between two looks at the hub's timers and acknowledgements while a stopping worker waits. A guess."""


class HubDesk:
    """
    The books are kept on the hub's thread.

    Woken through sockets of its own, not by the hub's ``call_soon``: that wakes no hub before kombu 5.7, and what
    callbacks leave to the hub meanwhile (acknowledgements) waits for its next reason to wake up, in every version.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._calls: deque[tuple[Work, tuple[Any, ...]]] = deque()
        self._woken = False
        self._bell: SimpleQueue[None] | None = None  # while somebody waits on the hub's thread
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)

    def attach(self, hub: Any) -> None:
        """Serve a hub whose loop is about to start, for the first time or after the connection was lost."""
        self._hub = hub
        hub.add_reader(self._ear.fileno(), self._wake_up)

    def now(self, fn: Work, *args: Any) -> None:
        """Call ``fn(*args)`` for somebody who is on the hub's thread."""
        fn(*args)

    def post(self, fn: Work, *args: Any) -> None:
        """Have ``fn(*args)`` called on the hub's thread, in order; a burst costs one wake-up. Thread: any."""
        self._calls.append((fn, args))
        if self._bell is not None:
            self._bell.put(None)
        elif not self._woken:
            self._woken = True
            try:
                self._mouth.send(b"\0")
            except OSError:  # stopped, or full of wake-ups
                pass

    def work_until(self, done: Callable[[], bool]) -> None:
        """
        Keep the books and the hub's timers going, from its own thread while its loop does not, until ``done()``.

        May be called again by a signal handler that interrupts it.
        """
        before, self._bell = self._bell, SimpleQueue()
        try:
            while True:
                self._work()
                self._hub.fire_timers()
                self._acknowledge()
                if done():
                    return
                try:
                    self._bell.get(timeout=_TICK)
                except Empty:
                    pass
        finally:
            self._bell = before

    def stop(self) -> None:
        """Close what was opened. Idempotent."""
        if self._ear.fileno() != -1:
            self._hub.remove(self._ear.fileno())
            self._ear.close()
            self._mouth.close()

    def _wake_up(self) -> None:
        try:
            self._ear.recv(4096)
        except BlockingIOError:
            pass
        self._work()

    def _work(self) -> None:
        self._woken = False  # before looking: whoever posts from now on wakes the hub again
        while self._calls:
            call(*self._calls.popleft())

    def _acknowledge(self) -> None:
        """Run the acknowledgements that wait for the hub; the rest of what waits would read more messages."""
        channels = set()
        for promise in self._hub._pop_ready():
            owner = getattr(getattr(promise, "fun", None), "__self__", None)
            if isinstance(owner, Message):
                call(promise, ())
                channels.add(owner.channel)
            else:
                self._hub.call_soon(promise)
        for channel in channels:
            send_acks = getattr(channel, "send_acks", None)  # our Redis transport's, which has no hub to tell it
            if send_acks is not None:
                call(send_acks, ())


class ThreadDesk:
    """The books are kept on a thread of their own; for transports without a hub."""

    def __init__(self) -> None:
        self._thread = Threads("homeloop-pool-desk")
        self._thread.start(1)
        self._bell: SimpleQueue[None] | None = None

    def attach(self, hub: Any) -> None:
        raise AssertionError(f"{hub!r} has come to a worker without one")

    def now(self, fn: Work, *args: Any) -> None:
        """Have ``fn(*args)`` called after what was posted before."""
        self._thread.put(fn, *args)

    def post(self, fn: Work, *args: Any) -> None:
        """Have ``fn(*args)`` called, in order. Thread: any."""
        self._thread.put(fn, *args)
        if self._bell is not None:
            self._thread.put(self._bell.put, None)

    def work_until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()``, which may be true after anything that was posted."""
        before, self._bell = self._bell, SimpleQueue()
        try:
            while not done():
                try:
                    self._bell.get(timeout=_TICK)
                except Empty:
                    pass
        finally:
            self._bell = before

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._thread.stop(_TICK)
