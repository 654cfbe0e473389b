"""How callers wait: a thread on a lock, a coroutine on a future of its own loop."""

import asyncio
import threading
import time
from _thread import get_ident
from typing import Any

from homeloop.runtime._hosts import raise_if_host_cancelled

_NOTICE = 0.5
"""Seconds between looks for what cannot wake a waiting thread: an exception that was injected into it
(PyThreadState_SetAsyncExc), the cancellation of the AnyIO task it works for. Signals wake the main
thread, so that one does not look."""


def wait_for(done: Any, timeout: float | None) -> bool:
    """Acquire the lock within ``timeout`` seconds, letting exceptions from outside surface meanwhile."""
    if timeout is None:
        if threading.main_thread().ident == get_ident():
            return bool(done.acquire())  # without a time it is a microsecond faster, too
        while not done.acquire(True, _NOTICE):
            raise_if_host_cancelled()
        return True
    deadline = time.monotonic() + timeout
    while not done.acquire(True, min(_NOTICE, max(0.0, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            return False
        raise_if_host_cancelled()
    return True


def answer(loop: asyncio.AbstractEventLoop, answered: "asyncio.Future[None]") -> None:
    """Wake the coroutine that waits on another loop. Thread: any."""
    try:
        loop.call_soon_threadsafe(_set_done, answered)
    except RuntimeError:  # the waiting loop is closed: nobody waits any more
        pass


def _set_done(answered: "asyncio.Future[None]") -> None:
    if not answered.done():
        answered.set_result(None)
