"""The sample contracts: what is found is what a careful reader finds, all of it and nothing else."""

import asyncio
from collections.abc import Callable
from importlib.resources import files

import pytest

from workflow_service.domain.contract import ContractReport, Finding, FindingKind
from workflow_service.domain.document import MEDIA_TYPES, DocumentText
from workflow_service.gateways.document_parser import DocumentParser

from .gold import NDA, SERVICES, Gold

Analyse = Callable[[str | DocumentText], ContractReport]
CONTRACTS = {"mutual-nda.pdf": NDA, "services-agreement.docx": SERVICES}


@pytest.fixture(params=CONTRACTS)
def contract(request: pytest.FixtureRequest, analyse: Analyse) -> tuple[DocumentText, ContractReport, list[Gold]]:
    """A shipped sample, what is found in it, and what a reader finds in it."""
    sample = files("workflow_service") / "samples" / request.param
    media_type = MEDIA_TYPES["." + request.param.rpartition(".")[2]]
    parser = DocumentParser(timeout=30, memory_bytes=1024**3)
    document = asyncio.run(parser.parse(sample.read_bytes(), media_type))
    return document, analyse(document), CONTRACTS[request.param]


def as_gold(finding: Finding) -> Gold:
    value = finding.severity or "" if finding.kind is FindingKind.RISK else finding.value
    return (finding.kind.value, finding.label, value, finding.clause, " ".join(finding.quote.split()))


def test_findings_are_those_of_a_careful_reader(
    contract: tuple[DocumentText, ContractReport, list[Gold]],
) -> None:
    """Nothing that a reader finds is missed, and nothing is found that a reader would not."""
    _, report, gold = contract
    found = [as_gold(finding) for finding in report.findings]
    assert [item for item in gold if item not in found] == []  # recall
    assert [item for item in found if item not in gold] == []  # precision
    assert len(found) == len(gold)


def test_findings_stand_on_the_page_they_name(contract: tuple[DocumentText, ContractReport, list[Gold]]) -> None:
    """The page of a finding is the one in whose text it begins."""
    document, report, _ = contract
    for finding in report.findings:
        page = document.pages[finding.page - 1]
        assert page.span.start <= finding.span.start <= page.span.end


def test_every_risk_says_why_and_what_to_ask_for(
    contract: tuple[DocumentText, ContractReport, list[Gold]],
) -> None:
    """A risk is of use only with its reason and an advice."""
    _, report, _ = contract
    risks = report.of_kind(FindingKind.RISK)
    assert risks
    assert all(risk.severity and len(risk.value) > 30 and len(risk.advice) > 30 for risk in risks)


def test_the_summary_names_what_a_reader_wants_first(analyse: Analyse) -> None:
    """Parties with roles, dates, term, law, counts, and the gravest risks first."""
    text = (files("workflow_service") / "samples" / "services-agreement.docx").read_bytes()
    parser = DocumentParser(timeout=30, memory_bytes=1024**3)
    summary = analyse(asyncio.run(parser.parse(text, MEDIA_TYPES[".docx"]))).summary()
    assert summary["parties"] == [
        {"name": "Cedar Valley Health Partners LLC", "role": "Customer"},
        {"name": "Lindqvist & Moreau Consulting GmbH", "role": "Supplier"},
    ]
    assert (summary["effective_date"], summary["term"], summary["governing_law"]) == (
        "2026-02-01",
        "P36M",
        "New York",
    )
    assert summary["findings_by_kind"]["money"] == 8
    assert summary["risks_by_severity"] == {"high": 4, "medium": 7, "low": 1}
    assert [risk["severity"] for risk in summary["top_risks"]] == ["high"] * 4 + ["medium"]
