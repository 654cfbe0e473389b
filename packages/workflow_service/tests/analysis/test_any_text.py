"""What holds for every text, however strange: it is analysed, quickly, and every finding can be looked up."""

import json
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_service.domain.analysis import assess, extract, segment
from workflow_service.domain.contract import Clause, ContractReport, Finding
from workflow_service.domain.document import Page, Span

FRAGMENTS = st.sampled_from([
    "1. ", "1.1 ", "2.3.4 ", "(a) ", "(i) ", "ARTICLE IV ", "Section 2. ", "# ", "## 3. ", "TERM", "Fees. ",
    "\n", "\n\n", " ", " | ", "; and", ". ", ":", "“", "”", "(", ")", "’s ", "**", "Acme Corp.", "Beta LLC",
    ", a Delaware corporation ", "(the “Company”)", "(“Supplier”)", "between ", "and ", "The Company shall ",
    "Each party shall ", "must not ", "may ", "terminate ", "at any time ", "indemnify ", "liability ",
    "unlimited ", "automatically renew ", "USD 50,000", "$1.5 million", "€ 20.000,00", "5,000 euros",
    "March 1, 2025", "2025-02-30", "03/04/2025", "one hundred and eighty (180) days", "twelve months",
    " prior written notice ", "a term of ",
    "governed by the laws of ", "the State of Delaware", "courts of London", "confidential in perpetuity ",
    "assigns all right, title ", "shall not compete ", "2% interest per month", "é", "😀", "\u2028", "İ", "ß", "٣",
])  # fmt: skip
TEXTS = st.one_of(
    st.text(), st.lists(FRAGMENTS).map("".join), st.lists(FRAGMENTS | st.text(max_size=3)).map("".join)
)


def analysed(text: str) -> ContractReport:
    pages = (Page(1, Span(0, len(text) // 2)), Page(2, Span(len(text) // 2, len(text))))
    clauses = segment(text, pages)
    return ContractReport(clauses, (*extract(text, pages, clauses), *assess(text, pages, clauses)))


def check(text: str, report: ContractReport) -> None:
    """Check what must hold between a text and what is found in it."""
    assert "".join(text[clause.span.start : clause.span.end] for clause in report.clauses) == text
    clauses = {clause.id: clause for clause in report.clauses}
    assert len(clauses) == len(report.clauses)
    for clause in report.clauses:
        assert clause.span.start <= clause.body.start <= clause.body.end == clause.span.end
        assert clause.parent is None or clause.parent in clauses
    for finding in report.findings:
        around = clauses[finding.clause].span
        assert around.start <= finding.span.start < finding.span.end <= around.end
        assert text[finding.span.start : finding.span.end] == finding.quote
        assert finding.value
        assert finding.label


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_every_text_is_analysed_and_every_finding_is_in_it(text: str) -> None:
    """No text raises; clauses are the whole text; a finding's place holds its quote, inside its clause."""
    check(text, analysed(text))


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_reports_survive_json(text: str) -> None:
    """What a checkpoint keeps as JSON is what was found."""
    report = analysed(text)
    data = json.loads(json.dumps(report.to_json()))
    assert tuple(map(Clause.from_json, data["clauses"])) == report.clauses
    assert tuple(map(Finding.from_json, data["findings"])) == report.findings


@pytest.mark.parametrize(
    "line",
    ["# a\n", "# a~2\n# a\n", "ABCD EF\n\n", "1. Aaa\n", "1.1.1 Aaa\n", "(a) x;\n", "Article I\nABCD EFG\n",
     "# Section 1 Foo\n", "a | b\n", "# a\nThe fee is USD 5.00 on 2020-01-01.\n\n"],
)  # fmt: skip
def test_work_grows_as_the_text_does(line: str) -> None:
    """Twice as many headings, items, rows or findings: twice as many calls, of Python's functions and of C's."""

    def calls(text: str) -> int:
        count = 0

        def note(_frame: object, event: str, _what: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            analysed(text)
        finally:
            sys.setprofile(before)
        return count

    analysed(line)  # what is compiled once is not counted
    assert calls(line * 2000) < 2.1 * calls(line * 1000)


def test_samples_hold_the_invariants(source: str) -> None:
    """A real contract keeps them too, and so does one whose lines end elsewhere."""
    for text in (source, re.sub(r"(\S) (\S)", r"\1\n\2", source), source.replace("\n\n", "\n")):
        check(text, analysed(text))


LENGTH = 200_000  # characters: what takes the square of it in steps does not end within the bound
HOSTILE = [
    "a", " ", "\n", "1.\n", "(a) x;\n", "# a\n", "AAAA\n\n", "a | b\n", ". ", "***", "(", "1,", "$1",
    "one hundred and ", "1 January ", "may not assign all right ", "liability of ", "notice of ", "and Cap ",
    "Acme, a (“", "governed by laws of A ", "The Party shall: ", "Aaa shall defend, ", "between Acme ",
]  # fmt: skip


@pytest.mark.parametrize("fragment", HOSTILE)
def test_a_long_text_made_to_be_slow_is_not(fragment: str) -> None:
    """No text takes more than time in proportion to its length; a backtracking pattern would take days."""
    text = (fragment * (LENGTH // len(fragment) + 1))[:LENGTH]
    report = analysed(text)
    assert sum(clause.span.end - clause.span.start for clause in report.clauses) == LENGTH
