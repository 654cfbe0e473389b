"""Finds the clauses that should not be signed unread, and says why and what to ask for."""

from collections.abc import Iterator, Sequence

from workflow_service.domain.analysis.risks import INDEMNITY, INDEMNITY_RISK, RULES, Risk
from workflow_service.domain.analysis.sentences import Sentence, sentences
from workflow_service.domain.contract import Clause, Finding, FindingKind
from workflow_service.domain.document import Page


def assess(text: str, pages: Sequence[Page], clauses: Sequence[Clause]) -> tuple[Finding, ...]:
    """Return the risks in the order of the text; a clause has a kind of risk once."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in _risks(list(sentences(text, pages, clauses))):
        found.setdefault((finding.label, finding.clause), finding)
    return tuple(sorted(found.values(), key=lambda finding: finding.span.start))


def _risks(all_sentences: Sequence[Sentence]) -> Iterator[Finding]:
    for sentence in all_sentences:
        for rule in RULES:
            if rule.applies(sentence.text, sentence.context):
                yield _finding(sentence, rule.risk)
    yield from _one_sided_indemnities(all_sentences)


def _one_sided_indemnities(all_sentences: Sequence[Sentence]) -> Iterator[Finding]:
    """Yield the indemnities of a contract in which only one side gives any."""
    given = [(sentence, match) for sentence in all_sentences if (match := INDEMNITY.search(sentence.text))]
    if any(match["mutual"] for _, match in given) or len({match["who"] for _, match in given}) != 1:
        return
    for sentence, _ in given:
        yield _finding(sentence, INDEMNITY_RISK)


def _finding(sentence: Sentence, risk: Risk) -> Finding:
    return sentence.finding(FindingKind.RISK, risk.name, risk.why, sentence.whole(), risk.severity, risk.advice)
