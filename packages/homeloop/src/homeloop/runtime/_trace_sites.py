"""Where the program is: its own innermost frame, past the libraries'."""

import asyncio
import os
import sys
import sysconfig
import threading
from dataclasses import replace
from types import FrameType
from typing import Any

from homeloop._events import LoopFault, emit
from homeloop._provenance import HARNESSES, LoopFact, LoopRecord, Spot, loop_records, object_records

Loop = asyncio.AbstractEventLoop
LoopBound: Any = next(
    kind for kind in asyncio.Lock.__mro__ if kind.__module__ == "asyncio.mixins"
)  # what locks and queues are; asyncio does not export it
running_loop = asyncio._get_running_loop  # pyright: ignore[reportPrivateUsage] - documented, returns None

_LIBRARIES = tuple(
    {os.path.normcase(path) + os.sep for key in ("stdlib", "platstdlib") if (path := sysconfig.get_path(key))}
)
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - a string prefix is wanted
_RUNNERS = frozenset(("run_until_complete", "run_forever"))
_MAX_DEPTH = 60
_MAX_CALLERS = 8
_CLOSING = frozenset(
    ("__aexit__", "__del__", "aclose", "close", "disconnect", "dispose", "terminate", "wait_closed")
)

_is_user: dict[str, bool] = {}
_told: set[tuple[str, str | None, int | None]] = set()


def user_spot(depth: int = 2) -> Spot | None:
    """Return the program's own innermost frame among the callers, or None if there is none within sixty."""
    frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage] - documented all the same
    for _ in range(_MAX_DEPTH):
        code = frame.f_code
        mine = _is_user.get(code.co_filename)
        if mine is None:
            mine = _is_user[code.co_filename] = is_programs(code.co_filename)
        if mine:
            return Spot(code, frame.f_lasti, frame.f_lineno)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def deep_spot(depth: int = 2) -> Spot | None:
    """Return the program's own innermost frame, as `user_spot` does, with the program's frames that called it."""
    spots: list[Spot] = []
    frame: FrameType | None = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage] - documented all the same
    for _ in range(_MAX_DEPTH):
        if frame is None or len(spots) > _MAX_CALLERS:
            break
        if is_programs(frame.f_code.co_filename):
            spots.append(Spot(frame.f_code, frame.f_lasti, frame.f_lineno))
        frame = frame.f_back
    return replace(spots[0], callers=tuple(spots[1:])) if spots else None


def used_object(depth: int = 2) -> object:
    """Return the object that the program's own code called: the outermost one that is known; else the last."""
    frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage] - documented all the same
    outermost: object = None
    known: object = None
    for _ in range(_MAX_DEPTH):
        if is_programs(frame.f_code.co_filename):
            break
        owner = frame.f_locals.get("self")
        if owner is not None and any(part in frame.f_code.co_filename for part in _PACKAGES):
            outermost = owner
        if owner is not None and object_records.get(owner) is not None:
            known = owner
        if frame.f_back is None:
            break
        frame = frame.f_back
    found = known if known is not None else outermost
    return "a future" if found is None else found


def is_closing(depth: int = 2) -> bool:
    """Say whether the program's own code asked for something to be closed, or a finalizer did."""
    frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage] - documented all the same
    for _ in range(_MAX_DEPTH):
        if is_programs(frame.f_code.co_filename):
            return False
        if frame.f_code.co_name in _CLOSING:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def is_end_of_block(depth: int = 2) -> bool:
    """Say whether somebody leaves an ``async with`` among the callers."""
    frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage] - documented all the same
    for _ in range(_MAX_DEPTH):
        if frame.f_code.co_name == "__aexit__":
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def is_programs(file: str) -> bool:
    """Say whether a file is the program's own: no library's, no package's, not ours."""
    if file.startswith(("<frozen", _OWN)) or file.endswith(".pyx") or any(part in file for part in _PACKAGES):
        return False
    return not os.path.normcase(file).startswith(_LIBRARIES)


def is_ours(file: str) -> bool:
    """Say whether a file is homeloop's."""
    return file.startswith(_OWN)


def note_loop(loop: Loop) -> LoopRecord:
    """Return a loop's record; one that was made before tracing began gets one without a place."""
    record = loop_records.get(loop)
    if record is None:
        record = LoopRecord(os.getpid(), threading.current_thread().name)
        loop_records.put(loop, record)
    return record


def loop_fact(loop: Loop) -> LoopFact:
    """Tell what is known of a loop now."""
    record = loop_records.get(loop)
    kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
    state = "closed" if loop.is_closed() else "running" if loop.is_running() else "idle"
    if record is None:
        return LoopFact(kind, state)
    return LoopFact(
        kind,
        state,
        record.thread,
        record.pid,
        made_at=None if record.made_at is None else record.made_at.place(),
        closed_at=None if record.closed_at is None else record.closed_at.place(),
    )


def report(
    kind: str, thing: object, evidence: str, owner: Loop | None, current: Loop | None, spot: Spot | None
) -> None:
    """Tell of a fault, once per kind and place."""
    key = (kind, None if spot is None else spot.code.co_filename, None if spot is None else spot.line)
    if key in _told:
        return
    _told.add(key)
    made: Any = object_records.get(thing)
    emit(
        LoopFault(
            kind=kind,
            what=thing if isinstance(thing, str) else f"{type(thing).__module__}.{type(thing).__qualname__}",
            evidence=evidence,
            used_at=None if spot is None else spot.place(),
            made_at=None if made is None or made.made_at is None else made.made_at.place(),
            owner=None if owner is None else loop_fact(owner),
            current=None if current is None else loop_fact(current),
        )
    )


def forget_reports() -> None:
    """Tell of everything again, should it happen again."""
    _told.clear()


def is_parents(loop: Loop) -> bool:
    """Say whether a loop was made by the process that this one was forked from."""
    record = loop_records.get(loop)
    return record is not None and record.pid != os.getpid()


def ran_in_parent(loop: Loop) -> bool:
    """Say whether a loop last ran in the process that this one was forked from, and not here."""
    record = loop_records.get(loop)
    return record is not None and record.ran_in not in (None, os.getpid())


def misuse(thing: object, owner: Loop, current: Loop | None) -> str:
    """Name the fault of using something of one loop on another one."""
    record = loop_records.get(owner)
    if is_parents(owner):
        return "fork-inherited"
    if owner.is_running():
        return "test-loop-mismatch" if _runs_for_a_test() else "two-live-loops"
    if isinstance(thing, LoopBound):
        return "primitive-rebind"
    if record is not None and record.made_at is not None and record.ran_in is None:
        return "loop-captured"
    return "test-loop-mismatch" if _runs_for_a_test() else "reuse-across-runs"


def _runs_for_a_test() -> bool:
    """Say whether a test's tool, and not the program, runs the loop of this thread."""
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage] - documented all the same
    is_past_loop, inner = False, ""
    while frame is not None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module == "anyio.from_thread" and name == "_call_func":
            # Who called stands on another thread; a test client hands over code of its own, or its own callables.
            given = (getattr(each, "__module__", None) or "" for each in frame.f_locals.get("args", ()))
            return any(each.startswith(HARNESSES) for each in (inner, *given))
        if is_past_loop and module.startswith(HARNESSES):
            return True
        if is_past_loop and is_programs(frame.f_code.co_filename):
            return False
        is_past_loop = is_past_loop or name in _RUNNERS or module == "asyncio.runners"
        frame, inner = frame.f_back, module
    return False
