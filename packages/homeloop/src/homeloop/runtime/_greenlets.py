"""
Greenlets: how a caller under gevent or eventlet waits for a loop while its neighbours go on.

The loop runs on a thread of its own there, too, with original locks and workers; only waiting is
the hub's affair. A greenlet waits for an event of its library; the loop's thread has the hub set it.
"""

import asyncio
import importlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, finalize

from homeloop._events import logger
from homeloop.errors import RuntimeDiedError
from homeloop.runtime._fork import STAYED, forget_in_child, keep_untouched
from homeloop.runtime._originals import original, original_loop, threads_are_replaced

_NOTICE = 0.5
"""Seconds between looks for a fork, after which nobody wakes a greenlet that waited."""

Hub = Any
"""The event loop of gevent or eventlet that belongs to the calling thread."""


class GeventHub:
    """Reaches one thread's gevent hub from other threads."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def new_event(self) -> Any:
        """Return an event for greenlets of this hub."""
        return importlib.import_module("gevent.event").Event()

    def call_later(self, callback: Callable[[], object]) -> Callable[[], None]:
        """
        Return a function to be called once, on any thread, which has ``callback`` called by the hub.

        Until then the hub has something to wait for; it would raise LoopExit otherwise.
        """
        watcher = self._hub.loop.async_()

        def called() -> None:
            watcher.stop()
            watcher.close()
            callback()

        def call() -> None:
            try:
                watcher.send()
            except ValueError:  # the hub was destroyed: nobody waits any more
                pass

        watcher.start(called)
        return call


class EventletHub:
    """Reaches one thread's eventlet hub from other threads, through a pipe that the hub listens to."""

    def __init__(self, hub: Hub) -> None:
        self._os = original("os")
        self._callbacks: deque[Callable[[], object]] = deque()
        self._woken = False
        self._reader, self._writer = self._os.pipe()
        for end in (self._reader, self._writer):
            self._os.set_blocking(end, False)
            finalize(self, self._os.close, end).atexit = False
        hub.add(hub.READ, self._reader, self._run, _ignore, _ignore)

    def new_event(self) -> Any:
        """Return an event for greenlets of this hub."""
        return _EventletEvent(importlib.import_module("eventlet.event").Event())

    def call_later(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Return a function to be called once, on any thread, which has ``callback`` called by the hub."""
        return lambda: self._call(callback)

    def _call(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)
        if not self._woken:
            self._woken = True
            try:
                self._os.write(self._writer, b"\0")
            except OSError:  # full, so it wakes already
                pass

    def _run(self, _fileno: int) -> None:
        try:
            self._os.read(self._reader, 4096)
        except BlockingIOError:  # a forked child that went on with its copy of the hub has read it
            pass
        self._woken = False  # before looking: whoever appends from now on wakes us again
        for _ in range(len(self._callbacks)):
            self._callbacks.popleft()()


def _ignore(*_: object) -> None:
    """What the hub may throw into a listening greenlet: our pipe has none, and is not closed while it listens."""


class _EventletEvent:
    """An eventlet event with the face of gevent's and threading's."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def set(self) -> None:
        self._event.send()

    def wait(self, timeout: float | None) -> bool:
        self._event.wait(timeout)
        return bool(self._event.ready())


class GreenWaiter:
    """How a greenlet waits, once: `wake` on any thread, `wait` in the greenlet."""

    def __init__(self, hub: GeventHub | EventletHub) -> None:
        self._event = hub.new_event()
        self.wake = hub.call_later(self._event.set)

    def wait(self, timeout: float | None, owner: Any = None) -> bool:
        """
        Wait at most ``timeout`` seconds; tell whether `wake` was called. May be called again.

        Raises:
            RuntimeDiedError: This is a forked child, in which the greenlet goes on, and the ``owner`` of what it
                waits for has stayed with the parent process.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._event.wait(min(_NOTICE, max(0.0, deadline - time.monotonic()))):
            if owner is not None and owner.inherited:
                raise RuntimeDiedError(owner.name, STAYED)
            if time.monotonic() >= deadline:
                return False
        return True


class _EventletHubs:
    """The pipes of this process's eventlet hubs: one for each thread that has waited."""

    def __init__(self) -> None:
        self._by_hub: WeakKeyDictionary[Any, EventletHub] = WeakKeyDictionary()
        forget_in_child(self)

    def of(self, hub: Hub) -> EventletHub:
        reached = self._by_hub.get(hub)
        if reached is None:
            reached = self._by_hub[hub] = EventletHub(hub)
        return reached

    def forget_parent(self) -> None:
        keep_untouched(self._by_hub)
        self._by_hub = WeakKeyDictionary()


_eventlet_hubs = _EventletHubs()


def green_hub() -> GeventHub | EventletHub | None:
    """
    Return the calling thread's hub; None where there is none, and so no other greenlet either.

    Neither library is imported, and no hub is made.
    """
    if "gevent.hub" in sys.modules:
        hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
        if hub is not None:
            return GeventHub(hub)
    if "eventlet.hubs" in sys.modules:
        hub = getattr(sys.modules["eventlet.hubs"]._threadlocal, "hub", None)
        if hub is not None:
            return _eventlet_hubs.of(hub)
    return None


def make_hub() -> GeventHub | EventletHub | None:
    """Return the calling thread's hub, made if need be; None in a process that neither library has patched."""
    if threads_are_replaced():
        patched_by_gevent = "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched(
            "threading"
        )
        importlib.import_module("gevent" if patched_by_gevent else "eventlet.hubs").get_hub()
    return green_hub()


def leave_thread() -> None:
    """Let go of the gevent hub that code on the calling thread, which ends now, may have made."""
    if "gevent.hub" in sys.modules:
        hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
        if hub is not None:
            hub.destroy(destroy_loop=True)


class CooperativeSelector:
    """
    Waits with the selector of gevent or eventlet, so that greenlets born on a loop's thread run meanwhile.

    Such greenlets are what libraries get that start a `threading.Thread` in a patched process. While
    the loop waits they see no running loop, as it would be on threads.
    """

    def __init__(self, selector: Any) -> None:
        self._selector = selector

    def select(self, timeout: float | None = None) -> Any:
        """Wait for events at most ``timeout`` seconds."""
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._selector.select(timeout)
        finally:
            asyncio._set_running_loop(loop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


def fit_for_thread(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """
    Return a loop that runs on a thread of its own in a patched process, too: ``loop``, or another in its place.

    Asyncio's own loop would use patched sockets and processes. Other loops stay: uvloop has its own
    sockets, but threads started by code on it do not run, as nothing runs the hub of its thread.
    """
    if not threads_are_replaced():
        return loop
    if type(loop) is not getattr(asyncio, "SelectorEventLoop", None):
        logger.warning(
            "a %s.%s runs in a process patched by gevent or eventlet: threads that code on it starts "
            "will not run; use asyncio.to_thread or asyncio's own loop",
            type(loop).__module__,
            type(loop).__qualname__,
        )
        return loop
    fit = original_loop(CooperativeSelector(importlib.import_module("selectors").DefaultSelector()))
    fit.set_debug(loop.get_debug())
    fit.set_task_factory(loop.get_task_factory())
    fit.set_exception_handler(loop.get_exception_handler())
    loop.close()
    return fit
