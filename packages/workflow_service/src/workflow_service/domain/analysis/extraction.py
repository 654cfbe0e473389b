"""Finds what a contract says: parties, dates, terms, law, money and obligations."""

from collections.abc import Iterator, Sequence

from workflow_service.domain.analysis.dates import find_dates
from workflow_service.domain.analysis.durations import find_durations
from workflow_service.domain.analysis.duties import Duties
from workflow_service.domain.analysis.law import find_law
from workflow_service.domain.analysis.money import find_money
from workflow_service.domain.analysis.parties import find_parties
from workflow_service.domain.analysis.sentences import sentences
from workflow_service.domain.contract import Clause, Finding
from workflow_service.domain.document import Page


def extract(text: str, pages: Sequence[Page], clauses: Sequence[Clause]) -> tuple[Finding, ...]:
    """Return what the text says, in its order; the clauses must be those of `segment`."""
    return tuple(sorted(_findings(text, pages, clauses), key=lambda finding: finding.span.start))


def _findings(text: str, pages: Sequence[Page], clauses: Sequence[Clause]) -> Iterator[Finding]:
    parties = list(find_parties(text, pages, clauses))
    yield from parties
    duties = Duties(party.label for party in parties)
    for sentence in sentences(text, pages, clauses):
        yield from find_dates(sentence)
        yield from find_durations(sentence)
        yield from find_law(sentence)
        yield from find_money(sentence)
        yield from duties.find(sentence)
