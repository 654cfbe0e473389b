"""Hosts of the calling thread: what they want and how they end, asked only where the host is loaded already."""

import importlib
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from homeloop.runtime._originals import real_threading


def raise_if_host_cancelled() -> None:
    """
    Raise the cancellation of the AnyIO task that the calling thread works for, if there is one.

    AnyIO's worker threads (``anyio.to_thread``, and with it Starlette's and FastAPI's sync endpoints)
    can only be asked; nothing wakes them. The main thread is none of them, and must not import anything here:
    what a signal handler raises, a soft time limit for one, might strike the import and come out as its error.
    """
    if "anyio.to_thread" not in sys.modules or threading.current_thread() is threading.main_thread():
        return
    try:
        check = importlib.import_module("anyio.from_thread").check_cancelled
    except AttributeError:  # AnyIO before 4.1
        return
    try:
        check()
    except RuntimeError:  # not one of AnyIO's threads
        return


def sheltered() -> AbstractContextManager[object]:
    """
    Have AnyIO leave the running task alone in the block, where it waits for a clean-up although it was cancelled.

    AnyIO cancels a task of a cancelled scope again in every turn of the loop until it ends, so the loop would
    spin as long. Cancellations of asyncio's own still come through.
    """
    make_scope: Any = getattr(sys.modules.get("anyio"), "CancelScope", None)
    scope: AbstractContextManager[object] = nullcontext() if make_scope is None else make_scope(shield=True)
    return scope


def await_before_kill(end: Callable[[], Awaitable[None]]) -> None:
    """
    Have ``end`` awaited before the server on this thread has the process killed, if it is one that does.

    Uvicorn, told to stop by a signal, shuts down and then, in its coroutine, raises the signal again
    under the handler it found: SIGTERM ends the process there, and the loop is never ended. The
    server is found as the signal's present handler, so this is asked again until there is one; to
    ask twice is harmless. Source: uvicorn/server.py, ``capture_signals``.

    Thread: the loop's own.
    """
    threading = real_threading()
    if "uvicorn.server" not in sys.modules or threading.current_thread() is not threading.main_thread():
        return
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not any(base.__module__ == "uvicorn.server" for base in type(server).__mro__):
        return
    lifespan: Any = getattr(server, "lifespan", None)
    if lifespan is None or "shutdown" in vars(lifespan):
        return  # it is too early, or done before
    shut_down: Callable[[], Awaitable[None]] = lifespan.shutdown

    async def shut_down_and_end() -> None:
        try:
            await shut_down()
        finally:
            if server._captured_signals:
                await end()

    lifespan.shutdown = shut_down_and_end
