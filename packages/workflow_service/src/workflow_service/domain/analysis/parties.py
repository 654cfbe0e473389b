"""Reads who makes a contract, from its opening, and the names it calls them by."""

import re
from collections.abc import Iterator, Sequence

from workflow_service.domain.analysis.segmentation import page_at
from workflow_service.domain.contract import Clause, Finding, FindingKind
from workflow_service.domain.document import Page, Span

_OPENING = 8000  # characters; parties are named on the first pages
_WINDOW = 800  # characters between a party's name and what it is called: seat, register, address
_NOT_A_PARTY = frozenset(
    {"agreement", "effective date", "party", "parties", "purpose", "services", "confidential information", "term"}
)

_ROLE = re.compile(
    r"\(\s?(?:hereinafter\s+|hereafter\s+|referred\s+to\s+as\s+|called\s+|each\s+|collectively,?\s+|together,?\s+"
    r"|an?\s+|the\s+|this\s+){0,5}[“\"‘'*_]{1,4}(?:the\s+)?"
    r"(?P<role>[A-Z][\w&’'. -]{0,40}?)[”\"’'*_]{1,4}[^()]{0,60}\)"
)
_SUFFIX = (
    r"(?:Inc|Incorporated|LLC|L\.L\.C|LLP|LP|Ltd|Limited|GmbH|AG|SE|KG|Corp|Corporation|Company|Co|PLC|plc|S\.A|SA|"
    r"SAS|SARL|B\.V|BV|N\.V|NV|AB|AS|Oy|Pty\s+Ltd)"
)
_TOKEN = r"[A-Z0-9][\w.&’'-]{0,40}"  # noqa: S105 (a word of a name)
_NAME = rf"(?P<name>{_TOKEN}(?:\s+(?:{_TOKEN}|&|of|de|du|la|van|von|der)){{0,7}}(?:,\s+{_SUFFIX}\b\.?)?)"
_CANDIDATE = re.compile(
    rf"(?:^|\b(?:[Bb]etween|[Aa]mong|[Aa]nd|AND|BETWEEN|[Bb]y)\b|[:;)\n])\s{{0,3}}(?:\(?\d\)\s{{0,3}})?[*_]{{0,3}}{_NAME}"
)
_HAS_SUFFIX = re.compile(rf"\b{_SUFFIX}\.?$")
_ENDS_WITH_ITS_OWN_STOP = re.compile(r"(?:\b(?:Inc|Corp|Co|Ltd|Jr|Sr)|\.[A-Z])\.$")
_DESCRIBED = re.compile(
    r"^[*_]{0,3},?\s+(?:an?\s|having\b|with\b|whose\b|of\b|resid|organi[sz]ed|incorporated)", re.IGNORECASE
)
_PAIR = re.compile(
    rf"\b[Bb]etween\s+{_NAME}[^;]{{0,300}}?\b[Aa]nd\s+(?P<second>{_TOKEN}(?:\s+(?:{_TOKEN}|&)){{0,7}}(?:,\s+{_SUFFIX}\b\.?)?)"
)


_DEFINED = re.compile(rf"[“\"](?P<role>[A-Z][\w&’'. -]{{0,40}}?)[”\"]\s+means\s+{_NAME}")
_WITH_YOU = re.compile(rf"\b[Bb]etween\s+(?:[Yy]ou\s+and\s+)?{_NAME}(?=(?P<rest>[^;.]{{0,40}}))")


def find_parties(text: str, pages: Sequence[Page], clauses: Sequence[Clause]) -> Iterator[Finding]:
    """Yield the parties; the label is the role a contract gives a party, and «party» where it gives none."""
    found: list[tuple[str, str, Span]] = []
    for opening in (
        text[: _opening_end(clauses)],
        text[:_OPENING],
    ):  # what is numbered may come before the parties
        found = found or list(_with_roles(opening)) or list(_without_roles(opening))
    for name, role, span in found:
        clause = next((clause for clause in clauses if clause.span.start <= span.start < clause.span.end), None)
        if clause is not None:
            end = min(span.end, clause.span.end)
            quote = text[span.start : end]
            page = page_at(pages, span.start)
            yield Finding(FindingKind.PARTY, role, name, quote, Span(span.start, end), clause.id, page)


def _opening_end(clauses: Sequence[Clause]) -> int:
    """Return where the opening ends: at the first numbered clause that does not itself name the parties."""
    for clause in clauses:
        is_numbered = clause.parent is None and clause.number and not clause.number.startswith("(")
        if is_numbered and clause.span.start and not re.search(r"part(?:y|ies)\b", clause.title, re.IGNORECASE):
            return min(clause.span.start, _OPENING)
    return _OPENING


def _with_roles(opening: str) -> Iterator[tuple[str, str, Span]]:
    behind_last = 0
    for match in _ROLE.finditer(opening):
        role = _one_line(match["role"])
        start = max(behind_last, match.start() - _WINDOW)
        behind_last = match.end()
        if role.lower() in _NOT_A_PARTY:
            continue
        candidate = _candidate(opening[start : match.start()])
        if candidate is not None:
            name, offset = candidate
            yield name, role, Span(start + offset, match.end())


def _candidate(window: str) -> tuple[str, int] | None:
    """Return the name in front of a role and where it begins: the first that looks like a party's."""
    for match in _CANDIDATE.finditer(window):
        name = match["name"]
        rest = window[match.end() :]
        is_alone = not rest.strip("*_, \n")
        if _HAS_SUFFIX.search(name) or _DESCRIBED.match(rest) or (is_alone and " " in name):
            return _name(name), match.start("name")
    return None


def _without_roles(opening: str) -> Iterator[tuple[str, str, Span]]:
    match = _PAIR.search(opening)
    if match is None:
        yield from _beside_you(opening)
        return
    for group in ("name", "second"):
        if _HAS_SUFFIX.search(match[group]) or " " in match[group]:
            yield _name(match[group]), "party", Span(*match.span(group))


def _beside_you(opening: str) -> Iterator[tuple[str, str, Span]]:
    """Yield the parties of a contract that calls the other one «you»."""
    for match in _DEFINED.finditer(opening):
        if _HAS_SUFFIX.search(match["name"]):
            yield _name(match["name"]), _one_line(match["role"]), Span(*match.span())
    for match in _WITH_YOU.finditer(opening):
        is_with_you = re.search(r"\b[Yy]ou\s+and\s+$", opening[: match.start("name")]) or re.match(
            r",?\s+and\s+you\b", match["rest"], re.IGNORECASE
        )
        if is_with_you and _HAS_SUFFIX.search(match["name"]):
            yield _name(match["name"]), "party", Span(*match.span("name"))
            return


def _name(text: str) -> str:
    """Return a name on one line, without the full stop of its sentence but with that of «Inc.»."""
    name = _one_line(text)
    return name if _ENDS_WITH_ITS_OWN_STOP.search(name) else name.rstrip(".")


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(",")
