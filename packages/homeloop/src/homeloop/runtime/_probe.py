"""Look at loops, tasks and threads from outside: pure readings, nothing is changed."""

import asyncio
import itertools
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast
from weakref import WeakKeyDictionary

from homeloop._affinity import Affinity

_numbers = itertools.count(1)
_numbered: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


def loop_affinity(loop: asyncio.AbstractEventLoop) -> Affinity:
    """Describe a loop as seen from the calling thread, which should be the loop's own."""
    # Without a lock, which a fork could leave locked: of two threads that ask first, one wastes a number.
    number = _numbered.get(loop) or _numbered.setdefault(loop, next(_numbers))
    kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
    return Affinity(os.getpid(), number, kind, threading.current_thread().name)


def callable_name(fn: Callable[..., object]) -> str:
    """Name a callable for people: ``module.qualname``, through partials."""
    while isinstance(fn, partial):
        fn = cast("Callable[..., object]", fn.func)
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{getattr(fn, '__module__', None) or type(fn).__module__}.{name}()"


def await_chain(task: "asyncio.Task[Any]") -> tuple[str, ...]:
    """Tell where a suspended task waits, outermost frame first, without homeloop's own frames."""
    places: list[str] = []
    awaited: Any = task.get_coro()  # Any: coroutines, generators and futures, told apart by attribute
    while awaited is not None:
        frame = _attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None and not frame.f_globals.get("__name__", "").startswith("homeloop.runtime"):
            places.append(_place(frame, frame.f_lineno))
        awaited = _attribute(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return tuple(places)


def thread_stack(ident: int | None, limit: int = 6) -> tuple[str, ...]:
    """Tell what a thread is doing: its innermost ``limit`` frames, outermost first."""
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - documented, underscore and all
    frame = frames.get(ident) if ident is not None else None
    places: list[str] = []
    while frame is not None and len(places) < limit:
        places.append(_place(frame, frame.f_lineno))
        frame = frame.f_back
    return tuple(reversed(places))


def _attribute(holder: Any, *names: str) -> Any:
    for name in names:
        value = getattr(holder, name, None)
        if value is not None:
            return value
    return None


def _place(frame: FrameType, line: int) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{line} in {frame.f_code.co_qualname}"
