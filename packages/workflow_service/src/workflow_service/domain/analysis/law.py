"""Reads which law governs a contract and which courts decide on it."""

import re
from collections.abc import Iterator

from workflow_service.domain.analysis.sentences import Sentence
from workflow_service.domain.contract import Finding, FindingKind

_WORD = r"[A-Z][\w.'’-]{0,40}"
_PLACE = rf"(?:the\s+)?(?P<place>{_WORD}(?:,?\s+(?:(?:and\s+)?(?:of\s+)?(?:the\s+)?)?{_WORD}){{0,8}})"
_LAW = re.compile(
    r"\b(?:[Gg]overned|[Cc]onstrued|[Ii]nterpreted)\b[^;]{0,120}?"
    rf"(?:\blaws?\s+of\s+{_PLACE}|(?:by|under|with)\s+(?:the\s+)?(?P<adjective>{_WORD}(?:\s+{_WORD}){{0,2}})\s+[Ll]aw\b)"
)
_VENUES = (
    re.compile(rf"\b(?:[Cc]ourts?)\s+(?:(?:located|sitting|situated|residing)\s+)?(?:in|of|at)\s+{_PLACE}"),
    re.compile(rf"\b(?:[Vv]enue|[Jj]urisdiction)\b[^;]{{0,60}}?\b(?:in|is|be|of)\s+{_PLACE}"),
    re.compile(rf"\b[Ss]eat\s+of\s+(?:the\s+)?arbitration\s+(?:is|shall\s+be)\s+{_PLACE}"),
    re.compile(rf"\barbitration\s+in\s+{_PLACE}"),
)
_KIND_OF_STATE = re.compile(
    r"(?:\b(?:of\s+)?the\s+|^|\b)(?:State|Commonwealth|Province|Republic|Kingdom)\s+of\s+(?:the\s+)?"
)


def find_law(sentence: Sentence) -> Iterator[Finding]:
    """Yield the governing law and the venue that a sentence names."""
    law = _LAW.search(sentence.text)
    if law:
        value = _name(law["place"] or law["adjective"])
        yield sentence.finding(FindingKind.GOVERNING_LAW, "governing law", value, _place(law))
    venue = next((match for pattern in _VENUES if (match := pattern.search(sentence.text))), None)
    if venue:
        yield sentence.finding(FindingKind.VENUE, "venue", _name(venue["place"]), _place(venue))


def _place(match: re.Match[str]) -> tuple[int, int]:
    """Return where a match stands, without the full stop of its sentence."""
    return match.start(), match.start() + len(match[0].rstrip(".,"))


def _name(place: str) -> str:
    """Return a place without what kind of state it is: «the State of Delaware» is Delaware."""
    words = " ".join(place.split())
    bare = _KIND_OF_STATE.sub("", words)
    return (bare or words).rstrip(".,")
