"""Cuts a contract into windows: stretches of whole clauses that a language model reads at a time."""

from collections.abc import Iterator, Sequence

from workflow_service.domain.contract import Clause
from workflow_service.domain.document import Span

_BREAKS = ("\n\n", "\n", ". ", "; ", " ")  # where a clause that is too long is cut, the best place first
_SHORTEST = 0.5  # of a window: a better place is not worth a shorter piece


def windows(text: str, clauses: Sequence[Clause], max_chars: int) -> tuple[Span, ...]:
    """Return windows of at most ``max_chars`` characters that follow each other and hold all words of the text.

    A window ends where a clause does; only a clause that is longer than a window is cut.
    """
    found: list[Span] = []
    start = end = 0
    for clause in clauses:
        if clause.span.end - start > max_chars and end > start:
            found.append(Span(start, end))
            start = end
        for cut in _cuts(text, Span(start, clause.span.end), max_chars):
            found.append(Span(start, cut))
            start = cut
        end = clause.span.end
    found.append(Span(start, end))
    return tuple(span for span in found if any(map(str.isalnum, text[span.start : span.end])))


def _cuts(text: str, span: Span, max_chars: int) -> Iterator[int]:
    """Yield where a stretch that is too long is cut."""
    start = span.start
    while span.end - start > max_chars:
        start = _cut(text, start, start + max_chars)
        yield start


def _cut(text: str, start: int, limit: int) -> int:
    earliest = start + int((limit - start) * _SHORTEST)
    for mark in _BREAKS:
        at = text.rfind(mark, earliest, limit)
        if at >= 0:
            return at + len(mark)
    return limit
