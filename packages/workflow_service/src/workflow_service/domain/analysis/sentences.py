"""Cuts clauses into sentences: the unit in which findings are looked for, and of bounded length."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workflow_service.domain.analysis.segmentation import page_at
from workflow_service.domain.contract import Clause, Finding, FindingKind, Severity
from workflow_service.domain.document import Page, Span

# Characters. The expressions of this package may look at every character of a sentence from every other one of it,
# so this bound is what keeps their time linear in the text. Sentences of contracts stay well under it.
LONGEST_SENTENCE = 2000

_BREAK = re.compile(r"[.!?][\"”’)\]*]{0,3}\s+|\n[ \t]*\n\s*|\n(?=[ \t]*[-*•] )")
_ABBREVIATIONS = frozenset({
    "no", "nos", "art", "sec", "inc", "ltd", "co", "corp", "vs", "mr", "mrs", "ms", "dr", "st", "cf", "approx",
    "e.g", "i.e", "u.s", "u.k", "u.s.a", "s.a", "b.v",
})  # fmt: skip
_MOST_TITLES = 4


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence or a row of a table. ``context`` holds the titles it stands under."""

    text: str
    start: int
    clause: Clause
    context: str
    pages: Sequence[Page]

    def finding(
        self,
        kind: FindingKind,
        label: str,
        value: str,
        place: tuple[int, int],
        severity: Severity | None = None,
        advice: str = "",
    ) -> Finding:
        """Return a finding at a place within this sentence, given as start and end from its beginning."""
        start, end = place
        span = Span(self.start + start, self.start + end)
        page = page_at(self.pages, span.start)
        return Finding(kind, label, value, self.text[start:end], span, self.clause.id, page, severity, advice)

    def whole(self) -> tuple[int, int]:
        """Return the place of the whole sentence."""
        return 0, len(self.text)


def sentences(text: str, pages: Sequence[Page], clauses: Sequence[Clause]) -> Iterator[Sentence]:
    """Yield the sentences of the clauses' bodies, in order, none longer than `LONGEST_SENTENCE`."""
    by_id = {clause.id: clause for clause in clauses}
    for clause in clauses:
        context = _titles(clause, by_id)
        for span in _pieces(text, clause.body):
            yield Sentence(text[span.start : span.end], span.start, clause, context, pages)


def _titles(clause: Clause, by_id: Mapping[str, Clause]) -> str:
    titles: list[str] = []
    around: Clause | None = clause
    while around is not None and len(titles) < _MOST_TITLES:
        titles.append(around.title)
        around = by_id[around.parent] if around.parent is not None else None
    return " / ".join(filter(None, reversed(titles)))


def _pieces(text: str, body: Span) -> Iterator[Span]:
    start = body.start
    for match in _BREAK.finditer(text, body.start, body.end):
        if _is_break(text, match, body.end):
            yield from _rows(text, Span(start, match.end()))
            start = match.end()
    yield from _rows(text, Span(start, body.end))


def _is_break(text: str, match: re.Match[str], end: int) -> bool:
    if match[0][0] == "\n" or "\n\n" in match[0]:
        return True
    if match.end() < end and text[match.end()].islower():
        return False
    before = text[max(0, match.start() - 12) : match.start()].rsplit(None, 1)
    word = before[-1].lower().lstrip('(“"') if before else ""
    return word not in _ABBREVIATIONS and not (len(word) == 1 and word.isalpha())


def _rows(text: str, span: Span) -> Iterator[Span]:
    """Yield a piece as it is, or row by row where it holds a table."""
    if text.find(" | ", span.start, span.end) < 0:
        yield from _bounded(text, span)
        return
    start = span.start
    while start < span.end:
        found = text.find("\n", start, span.end)
        end = span.end if found < 0 else found + 1
        yield from _bounded(text, Span(start, end))
        start = end


def _bounded(text: str, span: Span) -> Iterator[Span]:
    """Yield a piece that holds words without the white space around it, in parts if it is too long."""
    start = span.start
    while start < span.end:
        end = min(span.end, start + LONGEST_SENTENCE)
        if end < span.end:
            blank = text.rfind(" ", start + 1, end)
            end = blank if blank > 0 else end
        piece = text[start:end]
        stripped = piece.strip()
        if any(map(str.isalnum, stripped)):  # rules and dots say nothing
            begin = start + len(piece) - len(piece.lstrip())
            yield Span(begin, begin + len(stripped))
        start = end
