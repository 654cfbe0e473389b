"""The sample contracts as text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from workflow_service.domain.analysis import assess, extract, segment
from workflow_service.domain.contract import ContractReport
from workflow_service.domain.document import DocumentText, Page, Span

SOURCES = Path(__file__).parents[2] / "samples_source"


def as_document(text: str) -> DocumentText:
    """Return a text as a document of one page."""
    return DocumentText(text, (Page(1, Span(0, len(text))),))


@pytest.fixture
def analyse() -> Callable[[str | DocumentText], ContractReport]:
    """All three steps on a text."""

    def run(source: str | DocumentText) -> ContractReport:
        document = as_document(source) if isinstance(source, str) else source
        clauses = segment(document.text, document.pages)
        findings = [
            *extract(document.text, document.pages, clauses),
            *assess(document.text, document.pages, clauses),
        ]
        return ContractReport(clauses, tuple(findings))

    return run


@pytest.fixture(params=["mutual-nda", "services-agreement"])
def source(request: pytest.FixtureRequest) -> str:
    """The text of each sample contract; that the shipped files say the same is tested with the documents."""
    return (SOURCES / f"{request.param}.txt").read_text(encoding="utf-8")
