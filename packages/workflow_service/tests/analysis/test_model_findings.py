"""What of a language model's answer is believed, what it reads at a time, and how its findings join the rules'."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from workflow_service.domain.analysis import FINDINGS_SCHEMA, assess, believe, extract, merge, segment, windows
from workflow_service.domain.contract import Finding, FindingKind, FindingSource, Severity
from workflow_service.domain.document import Page, Span

TEXT = """\
SUPPLY AGREEMENT between Oak Tools Ltd (the “Seller”) and Elm GmbH (the “Buyer”).

1. Price
The Buyer shall pay USD 5,000 on March 1, 2025. The Buyer
shall pay USD 5,000 again on the first day
of April next year.

2. Audit
The Seller’s staff may audit the Buyer’s books without notice – at any hour. The deposit is non-refundable.

3. Law
This Agreement is governed by the laws of Ireland.
"""
PAGES = [Page(1, Span(0, len(TEXT)))]
CLAUSES = segment(TEXT, PAGES)


def said(kind: str, quote: str, value: str = "", label: str = "", severity: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "label": label, "value": value, "quote": quote, "severity": severity, "advice": ""}


def believed(*findings: dict[str, Any], window: Span | None = None) -> tuple[Sequence[Finding], dict[str, int]]:
    answer = {"findings": list(findings)}
    Draft202012Validator(FINDINGS_SCHEMA).validate(answer)
    found = believe(answer, TEXT, window or Span(0, len(TEXT)), PAGES, CLAUSES)
    return found.findings, {doubt.value: count for doubt, count in found.dropped.items()}


@pytest.mark.parametrize(
    "quote",
    [
        "The Buyer shall pay USD 5,000 again on the first day of April next year.",  # one line for three
        "The Seller's staff may audit the Buyer's books without notice - at any hour.",  # plain marks
        '  (the "Seller")\n',
    ],
)
def test_a_quote_is_found_whatever_its_blanks_and_marks(quote: str) -> None:
    """The finding's own quote is the text's, at the place that it names."""
    [finding], dropped = believed(said("obligation", quote, "as it says", "Buyer"))
    assert TEXT[finding.span.start : finding.span.end] == finding.quote
    assert " ".join(finding.quote.split()).translate({0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-"}) == (
        " ".join(quote.split())
    )
    assert (finding.source, dropped) == (FindingSource.MODEL, {})


@pytest.mark.parametrize(
    "quote",
    ["The Buyer shall pay USD 6,000", "The Buyer shall pay … next year", "the buyer SHALL pay", "", " – ", "Law."],
)
def test_what_does_not_stand_in_the_text_is_dropped_and_counted(quote: str) -> None:
    """Another amount, a gap, other letters, nothing: no word of it is believed."""
    assert believed(said("obligation", quote, "pay")) == ((), {"quote_not_in_text": 1})


def test_a_quote_from_outside_the_window_is_not_believed() -> None:
    """A model that was shown one part cannot know another."""
    law = CLAUSES[-1]
    quote = "governed by the laws of Ireland"
    assert believed(said("governing_law", quote, "Ireland"), window=Span(0, law.span.start))[0] == ()
    [finding], _ = believed(said("governing_law", quote, "Ireland"), window=law.span)
    assert finding.clause == law.id


def test_a_quote_that_stands_twice_is_two_findings_and_no_third() -> None:
    """Each place once, in order."""
    findings, dropped = believed(*[said("money", "USD 5,000", "5000 USD", "fee")] * 3)
    assert [finding.span.start for finding in findings] == [TEXT.index("USD"), TEXT.rindex("USD")]
    assert dropped == {"repeated": 1}


@pytest.mark.parametrize(
    ("kind", "quote", "value", "kept"),
    [
        ("date", "March 1, 2025", "2025-01-03", "2025-03-01"),  # the rules can read it: their reading holds
        ("date", "the first day\nof April next year", "2026-04-01", "2026-04-01"),  # they cannot
        ("date", "the first day\nof April next year", "April", None),
        ("money", "USD 5,000", "50000 USD", "5000 USD"),
        ("money", "The deposit is non-refundable", "much", None),
        ("governing_law", "the laws of Ireland", "ireland", "ireland"),
        ("governing_law", "the laws of Ireland", "Iceland", None),
        ("party", "Elm GmbH", "Elm GmbH", "Elm GmbH"),
        ("party", "Elm GmbH", "Elm Group", None),
        ("term", "at any hour", "P1H", None),
        ("notice_period", "at any hour", "P1D", "P1D"),
        ("obligation", "The Buyer\nshall pay", "", "The Buyer shall pay"),
    ],
)
def test_a_value_must_be_borne_out_by_its_quote(kind: str, quote: str, value: str, kept: str | None) -> None:
    """What the rules can read is read; a name must be there; a form that nobody else could read is dropped."""
    findings, dropped = believed(said(kind, quote, value))
    assert [finding.value for finding in findings] == ([] if kept is None else [kept])
    assert dropped == ({"value_not_in_quote": 1} if kept is None else {})


def test_a_risk_has_a_severity_and_nothing_else_has() -> None:
    """As the rules' findings have it."""
    quote = "The deposit is non-refundable."
    (unsaid, high), _ = believed(
        said("risk", quote, "why", "no refund"), said("risk", "deposit", "why", "x", "high")
    )
    assert (unsaid.severity, high.severity) == (Severity.MEDIUM, Severity.HIGH)
    [other], _ = believed(said("obligation", quote, "none", severity="low"))
    assert other.severity is None


def test_what_both_found_is_there_once_and_what_only_one_found_says_so() -> None:
    """The rules' value and place hold; a model's better word for them is taken."""
    by_rules = [*extract(TEXT, PAGES, CLAUSES), *assess(TEXT, PAGES, CLAUSES)]
    by_model, _ = believed(
        said("party", "Oak Tools Ltd", "Oak Tools Ltd", "Seller"),
        said("date", "March 1, 2025", "2025-03-01", "payment date"),
        said("obligation", "shall pay USD 5,000 on March 1, 2025", "pay", "Buyer"),
        said("risk", "may audit the Buyer’s books without notice", "why", "audit without notice"),
        said("party", "Elm GmbH", "Elm GmbH", "Buyer"),
    )
    # A part that is read later names a party again: that is no second party.
    merged = merge(by_rules, [*by_model, by_model[0]])
    assert [finding.span.start for finding in merged] == sorted(finding.span.start for finding in merged)
    assert len(merged) == len(by_rules) + 1
    by_source = {
        source: [(finding.kind.value, finding.label) for finding in merged if finding.source is source]
        for source in FindingSource
    }
    assert by_source[FindingSource.MODEL] == [("risk", "audit without notice")]
    assert by_source[FindingSource.BOTH] == [
        ("party", "Seller"), ("party", "Buyer"), ("obligation", "Buyer"), ("date", "payment date"),
    ]  # fmt: skip
    assert len(by_source[FindingSource.RULES]) == len(by_rules) - 4


def test_a_finding_of_before_there_were_sources_is_the_rules() -> None:
    """A run that was checkpointed by an older release goes on."""
    [finding] = [found for found in extract(TEXT, PAGES, CLAUSES) if found.kind is FindingKind.GOVERNING_LAW]
    old = {key: value for key, value in finding.to_json().items() if key != "source"}
    assert Finding.from_json(old) == finding


def test_windows_end_where_clauses_do() -> None:
    """Each holds as many whole clauses as fit."""
    found = windows(TEXT, CLAUSES, 300)
    assert [TEXT[span.start : span.end].split("\n")[0][:9] for span in found] == ["SUPPLY AG", "2. Audit"]
    assert {span.start for span in found} <= {clause.span.start for clause in CLAUSES}


def test_a_clause_that_is_too_long_is_cut_at_a_sentence() -> None:
    """No window is longer than it may be."""
    text = "One sentence is this. " * 40
    pages = [Page(1, Span(0, len(text)))]
    found = windows(text, segment(text, pages), 200)
    assert all(text[span.start : span.end].endswith("this. ") for span in found)


@given(st.text("ab1. \n\n;“(", max_size=400), st.integers(1, 50))
def test_windows_cover_every_word_of_any_text_in_order(text: str, max_chars: int) -> None:
    """What is between them has no letter and no digit."""
    pages = [Page(1, Span(0, len(text)))]
    found = windows(text, segment(text, pages), max_chars)
    edges = [0, *(edge for span in found for edge in (span.start, span.end)), len(text)]
    assert edges == sorted(edges)
    between = "".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    assert not any(map(str.isalnum, between))
    assert all(span.end - span.start <= max_chars for span in found)


@given(st.text(max_size=200), st.text(max_size=200), st.sampled_from(FindingKind))
def test_any_answer_gives_findings_that_can_be_looked_up(text: str, quote: str, kind: FindingKind) -> None:
    """Whatever is said of whatever text: what is believed stands where it says."""
    pages = [Page(1, Span(0, len(text)))]
    clauses = segment(text, pages)
    if not clauses:
        return
    answer = {"findings": [said(kind.value, quote, "P1D"), said(kind.value, text[5:25], "1 USD")]}
    for finding in believe(answer, text, Span(0, len(text)), pages, clauses).findings:
        assert text[finding.span.start : finding.span.end] == finding.quote
        around = next(clause for clause in clauses if clause.id == finding.clause)
        assert around.span.start <= finding.span.start < finding.span.end <= around.span.end
        assert finding.value
