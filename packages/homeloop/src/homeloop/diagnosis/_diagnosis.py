"""Diagnosis: what an exception says about event loops, as plain data."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from homeloop._events import LoopFault
from homeloop._provenance import LoopFact, Place, Spot, loop_records, object_records, shortened
from homeloop.diagnosis._chain import Link, unwind
from homeloop.diagnosis._codes import BY_CODE, BY_KIND, Code, Kind
from homeloop.diagnosis._frames import Frame
from homeloop.diagnosis._judgement import Channel, Confidence, Judgement, thing_name
from homeloop.diagnosis._reading import kind_name, kinds, loop_state, stored
from homeloop.diagnosis._render import render
from homeloop.diagnosis._rules import judge

logger = logging.getLogger("homeloop")
_MAX_MESSAGE = 200
_MAX_GLOBALS = 2000
_CALLBACKS = re.compile(r" cb=\[[^\]]*\]")  # of tasks, in the loops' messages: plumbing


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """
    What went wrong, where, and what to change; plain data that may be stored, sent and pickled.

    Attributes:
        code: For instance ``LOOP101``; ``explanation`` is what the code means in general.
        confidence: ``high`` when the loops' identities prove it, ``medium`` when the error is probably its
            consequence, ``low`` when no object was in sight.
        evidence: What it was concluded from.
        thing: Class of the object that was used, and its name in the program where that is known; may be empty.
        used_at: The program's own line that used it.
        made_at: Where the object was made, when the program was traced.
        owner: The loop it belongs to.
        current: The loop that ran.
        error: The exception that shows the fault; not always the one that was caught.
        message: That exception's message, cut off.
        hidden: Whether the exception that was caught is another one.
    """

    code: str
    confidence: Confidence
    evidence: str
    thing: str
    error: str
    message: str
    hidden: bool
    used_at: Place | None = None
    made_at: Place | None = None
    owner: LoopFact | None = None
    current: LoopFact | None = None

    @property
    def explanation(self) -> Code:
        """What the code means, and what to change."""
        return BY_CODE[self.code]

    @property
    def kind(self) -> str:
        """The name of what went wrong, for instance ``two-live-loops``."""
        return self.explanation.kind.value

    def render(self, *, color: bool = False) -> str:
        """Return the diagnosis as text of at most one screen; ``color`` adds a terminal's colours."""
        return render(self, color=color)

    def to_json(self) -> str:
        """Return everything as one line of JSON."""
        code = self.explanation
        return json.dumps(
            {
                **asdict(self),
                "kind": self.kind,
                "title": code.title,
                "misleads": code.misleads,
                "remedy": code.remedy,
            },
            ensure_ascii=False,
        )


def diagnose(error: BaseException, *, channel: Channel = "raised", note: bool = False) -> Diagnosis | None:
    """
    Tell whether an exception is the consequence of an event loop fault, and which.

    It is decided from the loops that ran the traceback's frames, the loops that the objects in them belong
    to, and the functions that raised. A message alone decides nothing: an application's own error with the
    same words is no finding. Causes, contexts and exception groups are looked at too.

    Args:
        error: The exception, with its traceback.
        channel: How it came to light: ``raised`` to the caller, ``logged`` by a loop, ``unraisable`` from a
            finalizer, or from an ``atexit`` hook.
        note: Add what was found to the exception as a note, once, so that every traceback of it shows it; none is
            added if its ``__notes__`` are no list. Otherwise the exception is not changed.

    Returns:
        The finding, or None. It holds no reference to the exception or any of its objects.

    Never raises. No code of the objects is run; the time is bounded by the number of exceptions and frames
    looked at. Thread: any; best the one that caught it, while the loops still are as they were.
    """
    try:
        links = unwind(error)
        judgement = judge(links, channel)
        if judgement is None:
            return None
        diagnosis = _report(judgement, links)
        if note:
            _add_note(error, f"\n{diagnosis.render()}")
        return diagnosis
    except Exception:  # whatever the program's objects do to us must not hide its error
        logger.debug("an exception could not be diagnosed", exc_info=True)
        return None


def _add_note(error: BaseException, text: str) -> None:
    """Add a note, once; to notes that are no list, which only the program can have put there, none is added."""
    notes: Any = stored(error).get("__notes__")
    known = cast("list[object]", notes if type(notes) is list else [])
    if any(type(each) is str and each == text for each in known):
        return
    try:
        BaseException.add_note(error, text)
    except Exception:  # it asks the exception's own class for the notes, and takes nothing but a list
        logger.debug("a diagnosis could not be added as a note", exc_info=True)


def from_fault(fault: LoopFault) -> Diagnosis:
    """Return the diagnosis of what tracing noticed before anything was raised."""
    return Diagnosis(
        code=BY_KIND[Kind(fault.kind)].code,
        confidence="high",
        evidence=fault.evidence,
        thing=fault.what,
        error="",
        message="",
        hidden=False,
        used_at=fault.used_at,
        made_at=fault.made_at,
        owner=fault.owner,
        current=fault.current,
    )


def detect_cross_loop_issue(error: BaseException) -> bool:
    """
    Say whether an exception is the consequence of a loop-bound object, or a loop, used where it does not live.

    Faults of a single loop (a time-out outside a task, tasks left behind) are none; see `diagnose` for these.

    Never raises. Thread: any.
    """
    diagnosis = diagnose(error)
    return diagnosis is not None and diagnosis.explanation.crosses_loops


def _report(found: Judgement, links: list[Link]) -> Diagnosis:
    code = BY_KIND[found.kind]
    caught = min(links, key=lambda link: link.depth)
    used = _used_frame(found, links)
    made = object_records.get(found.thing) if found.thing is not None else None
    return Diagnosis(
        code=code.code,
        confidence=found.confidence,
        evidence=found.evidence,
        thing=_describe(found, links),
        error=found.link.name,
        message=_cut(found.link.message),
        hidden=found.link is not caught,
        used_at=None if used is None else place(used),
        made_at=made.made_at.place() if made is not None and made.made_at is not None else None,
        owner=None if found.owner is None else _loop_fact(found.owner, links),
        current=None
        if found.current is None or found.current is found.owner
        else _loop_fact(found.current, links),
    )


def _used_frame(found: Judgement, links: list[Link]) -> Frame | None:
    """Return the program's own innermost frame; else the frame that the rule looked at."""
    for link in (found.link, *sorted(links, key=lambda each: each.depth)):
        for frame in reversed(link.frames):
            if frame.is_user:
                return frame
    return found.frame or found.link.last


def _describe(found: Judgement, links: list[Link]) -> str:
    if found.thing is None:
        return ""
    name = thing_name(found.thing)
    for known, module in _names_of(found.thing, links):
        return f"{known} ({name}) of module {module}"
    return name


def _names_of(thing: object, links: list[Link]) -> Iterator[tuple[str, str]]:
    """Yield the module-level names of an object in the modules of the program's own frames."""
    looked_at: set[int] = set()
    for link in links:
        for frame in reversed(link.frames):
            if frame.is_user and id(frame.raw.f_globals) not in looked_at:
                looked_at.add(id(frame.raw.f_globals))
                for name, value in list(frame.raw.f_globals.items())[:_MAX_GLOBALS]:
                    if value is thing:
                        yield name, frame.module


def _cut(message: str) -> str:
    message = _CALLBACKS.sub("", shortened(message, everywhere=True))
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."


def _loop_fact(loop: Any, links: list[Link]) -> LoopFact:
    """Describe a loop by its records, its state and the frames that ran it."""
    record = loop_records.get(loop)
    module, kind = kind_name(kinds(loop)[0])
    return LoopFact(
        kind=f"{module}.{kind}",
        state=loop_state(loop),
        thread=record.thread if record is not None else "",
        pid=record.pid if record is not None else None,
        made_at=record.made_at.place() if record is not None and record.made_at is not None else None,
        run_at=_run_at(loop, links),
        closed_at=record.closed_at.place() if record is not None and record.closed_at is not None else None,
    )


def _run_at(loop: Any, links: list[Link]) -> Place | None:
    """Return the program's own line that started a loop, if the traceback shows it."""
    for link in sorted(links, key=lambda each: each.depth):
        before: Frame | None = None
        for frame in link.frames:
            if frame.loop is loop and before is not None:
                return place(before)
            if frame.is_user and frame.loop is not loop:
                before = frame
    return None


def place(frame: Frame) -> Place:
    """Return a frame's place."""
    return Spot(frame.raw.f_code, frame.lasti, frame.line).place()
