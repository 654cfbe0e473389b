"""What a fork does: the child forgets its parent's loops without touching them."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType
from typing import Any, NoReturn, Protocol, cast
from weakref import ref

STAYED = "its loop stayed with the parent process"

AWAITED = (
    "a child forked in a coroutine awaited something, or was forked in a background task; it ends here, as its "
    "copy of the parent's loop does not run: let it work without awaiting (homeloop.run() is fine), then return"
)


class Inherited(Protocol):
    """Something that a forked child must forget."""

    def forget_parent(self) -> None:
        """
        Drop what belongs to the parent process.

        Called in the child before its own code goes on, with one thread. Must not block, so it
        may replace locks but not take them.
        """
        ...


_inherited: set[ref[Inherited]] = set()
"""Not a WeakSet: an interrupt that struck in its Python code while something is freed would be swallowed there."""

_watching = False

_parents: list[object] = []
"""Loops of the parent, kept alive in the child: closing one would write to sockets and selectors
that the parent still uses (an epoll set is shared across fork)."""

_last_acts: list[Callable[[], object]] = []


def keep_untouched(inherited: object) -> None:
    """Never let go of something that belongs to the parent process."""
    _parents.append(inherited)


def forget_in_child(inherited: Inherited) -> None:
    """Call ``inherited.forget_parent()`` in every child forked from now on, while the object lives."""
    global _watching
    _inherited.add(ref(inherited, _inherited.discard))
    if not _watching and hasattr(os, "register_at_fork"):  # not on Windows
        _watching = True
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for each in tuple(_inherited):
        inherited = each()
        if inherited is not None:
            inherited.forget_parent()


def before_child_ends(act: Callable[[], object]) -> None:
    """Have something done before `end_child` ends the process."""
    _last_acts.append(act)


def end_child(error: BaseException | None) -> NoReturn:
    """
    End a process that was forked on a thread of ours, which is now through with what it did there.

    There is nothing it could go back to: the thread's further work is the parent's. It ends as
    multiprocessing's children do, without exit handlers, which are the parent's, too. Its exit code is 0, that
    of a SystemExit, or 1 for any other ``error``, which is printed.
    """
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if code and not isinstance(error.code, int):
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
        for act in _last_acts:
            act()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(code)


def end_on_return(loop: asyncio.AbstractEventLoop, runs: CodeType) -> None:
    """
    Have the copy of a running loop that a forked child has do nothing more than return.

    Args:
        loop: The loop, which runs on the calling thread.
        runs: The code that runs it; a loop written in C ends the process as soon as it calls anything from there.
    """
    loop.stop()
    if hasattr(loop, "_ready"):  # asyncio's own
        cast("Any", loop)._ready = _Deaf()
    else:
        sys.setprofile(partial(_end_on_call, runs))


class _Deaf(deque[object]):
    """What a loop in a forked child finds due: nothing, not even what it has just called for itself."""

    def append(self, handle: object) -> None:
        pass


def _end_on_call(runs: CodeType, frame: FrameType, event: str, _: object) -> None:
    caller = frame.f_back
    if event == "call" and caller is not None and caller.f_code is runs:
        end_child(RuntimeError(AWAITED))
