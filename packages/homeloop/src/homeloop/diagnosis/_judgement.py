"""What a rule concludes from a chain of exceptions, before it is told to people."""

import os
import sys
from dataclasses import dataclass
from typing import Any, Literal

from homeloop._provenance import loop_records, object_records
from homeloop.diagnosis._chain import Link
from homeloop.diagnosis._codes import Kind
from homeloop.diagnosis._frames import NO_LOOP, Frame
from homeloop.diagnosis._reading import is_kind, is_loop, kind_name, kinds, loop_state

Confidence = Literal["high", "medium", "low"]
Channel = Literal["raised", "logged", "unraisable", "atexit"]
"""How the exception came to light."""


@dataclass(slots=True)
class Judgement:
    """
    A finding with the live objects that prove it; it does not outlive the diagnosis.

    ``thing`` is the object that was used, ``owner`` the loop it belongs to, ``current`` the loop that ran.
    """

    kind: Kind
    confidence: Confidence
    evidence: str
    link: Link
    thing: object = None
    owner: Any = None
    current: Any = None
    frame: Frame | None = None


_PRIMITIVES = ("Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Queue", "Barrier")
_CLOSING = frozenset(
    (
        "aclose",
        "close",
        "dispose",
        "disconnect",
        "wait_closed",
        "shutdown",
        "terminate",
        "__del__",
        "_close",
        "ashutdown",
    )
)


def is_future(value: object) -> bool:
    """Say whether an object is a future or task of asyncio."""
    return is_kind(value, "_asyncio", "Future", "Task") or is_kind(value, "asyncio", "Future", "Task")


def is_primitive(value: object) -> bool:
    """Say whether an object is one of asyncio's locks or queues."""
    return is_kind(value, "asyncio", *_PRIMITIVES)


def foreign(owner: Any, current: Any) -> bool:
    """Say whether an owner is known and another loop than the one that ran, which is known too."""
    return owner is not None and current is not None and current is not NO_LOOP and owner is not current


def inherited(value: object, loop: Any) -> bool:
    """Say whether a loop, or an object, is recorded as made in another process than this one."""
    record = loop_records.get(loop) if loop is not None else None
    if record is not None and record.pid != os.getpid():
        return True
    made = object_records.get(value) if value is not None else None
    return made is not None and made.pid != os.getpid()


def _outlived(loop: Any, owner: Any) -> bool:
    """Say whether a loop ended, as recorded, while one of another thread, the owner, still ran."""
    ran = None if loop is NO_LOOP or loop is None else loop_records.get(loop)
    owners = loop_records.get(owner)
    if ran is None or owners is None or ran.ended is None or owners.ended is None or ran.thread == owners.thread:
        return False
    return owners.began < ran.ended < owners.ended


def was_live(owner: Any, links: list[Link]) -> bool:
    """Say whether a loop was running at the fault: it ran a frame of the traceback, ended later, or runs now."""
    for link in links:
        for frame in link.frames:
            if frame.loop is owner or _outlived(frame.loop, owner):
                return True
    return loop_state(owner) == "running"


def relation(thing: object, owner: Any, links: list[Link]) -> Kind:
    """Say how an object came to be used on a loop that is not its own."""
    if inherited(thing, owner):
        return Kind.FORK_INHERITED
    if was_live(owner, links):
        return Kind.TWO_LIVE_LOOPS
    if is_primitive(thing):
        return Kind.PRIMITIVE_REBIND
    record = loop_records.get(owner)
    if record is not None and record.ran_in is None:
        return Kind.TWO_LIVE_LOOPS if is_future(thing) else Kind.LOOP_CAPTURED
    return Kind.REUSE_ACROSS_RUNS


def in_context(kind: Kind, judged: Link, current: Frame | None, channel: Channel, links: list[Link]) -> Kind:
    """Refine a relation by what the code was doing: closing something, or testing."""
    if kind in (Kind.FORK_INHERITED, Kind.NESTED_RUN):
        return kind
    if channel == "unraisable" and (dead := died_suspended(links)) is not None:
        return Kind.ASYNCGEN_CLEANUP if dead.is_async_generator else Kind.TASK_SPILLOVER
    if channel in ("unraisable", "atexit") or is_closing(judged):
        return Kind.LATE_CLEANUP
    if current is not None and current.harness and kind in (Kind.TWO_LIVE_LOOPS, Kind.REUSE_ACROSS_RUNS):
        return Kind.TEST_LOOP_MISMATCH
    return kind


def is_closing(link: Link) -> bool:
    """Say whether the program's own code asked for something to be closed, or a finalizer did."""
    if any(frame.function == "__del__" for frame in link.frames):
        return True
    below = [frame for frame in link.after_user if not frame.is_standard]
    if len(below) == len(link.frames) - sum(frame.is_standard for frame in link.frames):
        # Nobody's own code: a finalizer, or a task that a library started to close something.
        return any(frame.function in _CLOSING for frame in below)
    return bool(below) and below[0].function in _CLOSING


def died_suspended(links: list[Link]) -> Frame | None:
    """Return the frame of a coroutine or async generator that was collected while it waited."""
    for link in links:
        if type(link.error) is GeneratorExit:
            for frame in link.frames:
                if frame.is_async:
                    return frame
    return None


def greenlets_active() -> bool:
    """Say whether gevent or eventlet has replaced the blocking calls of this process."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and getattr(gevent, "saved", None):
        return True
    eventlet = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(getattr(eventlet, "already_patched", None))


def thing_name(thing: object) -> str:
    """Name an object by its class; its own ``repr`` is not asked."""
    module, name = kind_name(kinds(thing)[0])
    if is_loop(thing):
        return f"the loop ({module}.{name})"
    return name if module == "builtins" else f"{module}.{name}"
