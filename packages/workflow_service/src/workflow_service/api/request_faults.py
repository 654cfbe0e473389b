"""What is wrong with a request, with its place as the client sent it: the ``errors`` of a problem document."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workflow_service.domain.predicates import predicate

Fault = Mapping[str, str]
"""``in`` (body, query, path or header), ``field`` (a parameter's name, or a path in the body), ``message``."""

OWN_WORDS = "own_words"
"""The type of an error whose message is ours already."""

_SHOWN = 3  # faults in the text; all of them are in the list
_PARAMETERS = ("query", "path", "header", "cookie")


def body_fault(field: str, message: str) -> Fault:
    """Return a fault of the body; ``field`` is a path such as ``input_data.people[0].name``, "" for all of it."""
    return {"in": "body", "field": field, "message": message}


def faults_of_shape(errors: Iterable[Mapping[str, Any]]) -> list[Fault]:  # Any: as pydantic has it
    """Return what pydantic found: never the value, which may be a secret, and which the sender has."""
    return [_fault(error) for error in errors]


def told(faults: Sequence[Fault]) -> str:
    """Return the first faults as one line of text."""
    text = "; ".join(_told(fault) for fault in faults[:_SHOWN])
    return text if len(faults) <= _SHOWN else f"{text}; and {len(faults) - _SHOWN} more"


def _fault(error: Mapping[str, Any]) -> Fault:
    where, *place = error["loc"]
    message = str(error["msg"]) if error["type"] == OWN_WORDS else predicate(error["type"], str(error["msg"]))
    if where in _PARAMETERS:
        # Of a parameter that is given several times the place has the number, too; the name is what was sent.
        return {"in": where, "field": str(place[0]), "message": message}
    return body_fault(_path(place), message)


def _path(place: Sequence[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def _told(fault: Fault) -> str:
    where, field, message = fault["in"], fault["field"], fault["message"]
    if where == "body":
        return f"{field or 'the body'} {message}"
    noun = "header" if where == "header" else f"{where} parameter"
    return f"{noun} {field} {message}"
