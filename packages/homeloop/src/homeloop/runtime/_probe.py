"""Look at loops, tasks and threads from outside: pure readings, nothing is changed."""

import asyncio
import gc
import itertools
import os
import sys
from collections.abc import Callable
from contextvars import Context
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast
from weakref import WeakKeyDictionary

from homeloop._affinity import Affinity
from homeloop.runtime._originals import real_threading

_numbers = itertools.count(1)
_numbered: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


def loop_affinity(loop: asyncio.AbstractEventLoop) -> Affinity:
    """Describe a loop as seen from the calling thread, which should be the loop's own."""
    # Without a lock, which a fork could leave locked: of two threads that ask first, one wastes a number.
    number = _numbered.get(loop) or _numbered.setdefault(loop, next(_numbers))
    kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
    return Affinity(os.getpid(), number, kind, real_threading().current_thread().name)


def callable_name(fn: Callable[..., object]) -> str:
    """Name a callable for people: ``module.qualname``, through partials."""
    while isinstance(fn, partial):
        fn = cast("Callable[..., object]", fn.func)
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{getattr(fn, '__module__', None) or type(fn).__module__}.{name}()"


def task_context(task: "asyncio.Task[Any]") -> Context | None:
    """Return the context that a task runs in; None if it does not tell. Thread: any."""
    read = getattr(task, "get_context", None)
    if read is not None:  # Python 3.12 and later
        return cast("Context", read())
    context = getattr(task, "_context", None)
    if context is not None:  # a task written in Python
        return cast("Context", context)
    # The C task of 3.11 keeps it to itself, but shows it to the garbage collector, before those of its callbacks.
    return next((each for each in gc.get_referents(task) if type(each) is Context), None)


_OWN = ("homeloop.batch", "homeloop.isolation", "homeloop.runtime", "homeloop.serving")


def error_text(error: BaseException) -> str:
    """Return the error's representation, or what can be said of an error that cannot represent itself."""
    try:
        return repr(error)
    except Exception as failed:
        return f"<{type(error).__qualname__}, whose __repr__ raises {type(failed).__qualname__}>"


def await_chain(task: "asyncio.Task[Any]") -> tuple[str, ...]:
    """Tell where a suspended task waits, outermost frame first, without homeloop's own frames."""
    places: list[str] = []
    awaited: Any = task.get_coro()  # Any: coroutines, generators and futures, told apart by attribute
    while awaited is not None:
        frame = _attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None and not frame.f_globals.get("__name__", "").startswith(_OWN):
            places.append(code_place(frame.f_code, frame.f_lineno))
        awaited = _attribute(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return tuple(places)


loop_threads: dict[int, Any] = {}
"""
The threads that run a runtime's loop, each with the greenlet that does (None in a process without greenlets).

In a patched process what blocks there may leave its thread to that thread's hub meanwhile: the thread's own stack
is the hub's then, and the greenlet has the one that tells.
"""

_BELOW = frozenset({"threading", "asyncio", "homeloop", "collections"})
"""The packages that run what was given to a thread or a loop: nobody asks for their frames."""


def running_greenlet() -> Any:
    """Return the greenlet that runs the calling code; None if nobody has imported greenlets."""
    greenlet = sys.modules.get("greenlet")
    return None if greenlet is None else greenlet.getcurrent()


def thread_stack(ident: int | None, limit: int = 6) -> tuple[str, ...]:
    """
    Tell what a thread is doing: the frames of its stack, outermost first, at most ``limit`` of them.

    The outermost ones that only run what was given to a loop or a thread are left out, if there are others. Of
    more than ``limit`` the half that began it and the half that does it are named, and how many are in between.
    """
    # Not kept: our own frame is among them, and the cycle would keep the variables of every thread.
    frame = getattr(loop_threads.get(ident or 0), "gr_frame", None)  # None unless another greenlet runs there
    if frame is None:
        frame = sys._current_frames().get(ident or 0)  # pyright: ignore[reportPrivateUsage] - documented all the same
    return _stack(frame, limit)


def thread_stacks(limit: int) -> dict[int, tuple[str, ...]]:
    """Tell what each thread of the system is doing at this moment, by its number; as `thread_stack` does."""
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - documented all the same
    try:
        return {ident: _stack(frame, limit) for ident, frame in frames.items()}
    finally:
        frames.clear()  # our own is among them, and the cycle would keep the variables of every thread


def _stack(frame: FrameType | None, limit: int) -> tuple[str, ...]:
    places: list[str] = []
    below = 0  # how many of the outermost
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        below = below + 1 if package in _BELOW else 0
        places.append(code_place(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    places = places[: len(places) - below or None][::-1]
    if len(places) > limit:
        inner = limit // 2
        places[limit - inner : len(places) - inner] = [f"{len(places) - limit} more"]
    return tuple(places)


def _attribute(holder: Any, *names: str) -> Any:
    for name in names:
        value = getattr(holder, name, None)
        if value is not None:
            return value
    return None


def code_place(code: CodeType, line: int) -> str:
    """Name a line of some code for people."""
    return f"{Path(code.co_filename).name}:{line} in {code.co_qualname}"
