"""A warning of a finalizer: whether what it finalizes lived on a loop that is closed."""

from types import FrameType

from homeloop._provenance import LoopFact, object_records
from homeloop.diagnosis._codes import BY_KIND, Kind
from homeloop.diagnosis._diagnosis import Diagnosis
from homeloop.diagnosis._executing import callers
from homeloop.diagnosis._frames import Frame
from homeloop.diagnosis._judgement import thing_name
from homeloop.diagnosis._reading import kind_name, kinds, loop_state, owner_loop, stored

_FINALIZERS = ("__del__", "_finalize_fairy")
_MAX_ATTRIBUTES = 100


def finalizing(frame: FrameType | None) -> Diagnosis | None:
    """
    Return the finding if a finalizer that is running was left something whose loop is closed.

    Args:
        frame: The innermost frame; its callers are looked at too.

    Never raises. Thread: the one that runs the frame.
    """
    try:
        for raw in callers(frame):
            if raw.f_code.co_name in _FINALIZERS:
                return _of_finalizer(Frame(raw, raw.f_lineno, raw.f_lasti))
    except Exception:  # as with diagnose(): nothing of the program's may be disturbed
        return None
    return None


def _of_finalizer(frame: Frame) -> Diagnosis | None:
    for thing in frame.variables.values():
        inner = [owner_loop(value) for value in list(stored(thing).values())[:_MAX_ATTRIBUTES]]
        for loop in (owner_loop(thing), *inner):
            if loop is not None and loop_state(loop) == "closed":
                made = object_records.get(thing)
                module, kind = kind_name(kinds(loop)[0])
                return Diagnosis(
                    code=BY_KIND[Kind.LATE_CLEANUP].code,
                    confidence="high",
                    evidence=f"{frame.module}.{frame.function}() found it unclosed, and its loop is closed",
                    thing=thing_name(thing),
                    error="",
                    message="",
                    hidden=False,
                    made_at=made.made_at.place() if made is not None and made.made_at is not None else None,
                    owner=LoopFact(f"{module}.{kind}", "closed"),
                )
    return None
