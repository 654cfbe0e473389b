"""Facts in the wordings contracts use, beyond those of the samples, and what must not be taken for one."""

from collections.abc import Callable

import pytest

from workflow_service.domain.contract import ContractReport, FindingKind

Analyse = Callable[[str], ContractReport]


def values(report: ContractReport, kind: FindingKind) -> list[tuple[str, str]]:
    return [(finding.label, finding.value) for finding in report.of_kind(kind)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The fee is $1,250.50 in total.", ["1250.50 USD"]),
        ("The fee is US$ 5 million or C$7.", ["5000000 USD", "7 CAD"]),
        ("The fee is EUR 20.000,00 plus 3,000 euros.", ["20000.00 EUR", "3000 EUR"]),
        ("Pay fifty thousand dollars ($50,000) and £1.25bn.", ["50000 USD", "1250000000 GBP"]),
        ("Pay 100 U.S. dollars or 12,500 USD.", ["100 USD", "12500 USD"]),
        ("A share of 50%, 3 days, Section 4.2 and EUR 20.000 are not clear amounts.", []),
    ],
)
def test_money(analyse: Analyse, text: str, found: list[str]) -> None:
    """Amounts are decimal numbers with an ISO code; what can be read in two ways is not an amount."""
    assert [value for _, value in values(analyse(text), FindingKind.MONEY)] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("This Agreement is effective as of May 5th, 2024.", [("effective date", "2024-05-05")]),
        ("Dated 1 Sept 2024.", [("agreement date", "2024-09-01")]),
        ("It expires on 2027-12-31.", [("end date", "2027-12-31")]),
        ("Signed on the 3rd day of February 2025.", [("signature date", "2025-02-03")]),
        ("Payable on 31/12/2025.", [("date", "2025-12-31")]),
        ("Payable on 03/04/2025.", [("ambiguous date", "03/04/2025")]),
        ("Payable on 04.04.2025.", [("date", "2025-04-04")]),
        ("On February 30, 2025 or 2025-13-01 nothing is due; see 1.2.2024.5.", []),
    ],
)
def test_dates(analyse: Analyse, text: str, found: list[tuple[str, str]]) -> None:
    """Dates are ISO 8601 with what happens on them; one that means two days is said to do so."""
    assert values(analyse(text), FindingKind.DATE) == found


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("The term of this Agreement is 24 (twenty-four) months.", FindingKind.TERM, [("term", "P24M")]),
        ("It continues in full force and effect for a period of one year.", FindingKind.TERM, [("term", "P1Y")]),
        ("It is extended for an additional two-year period.", FindingKind.RENEWAL, [("renewal term", "P2Y")]),
        ("Upon 30 days' prior written notice it ends.", FindingKind.NOTICE_PERIOD, [("notice", "P30D")]),
        ("Give notice of not less than six weeks before you terminate.", FindingKind.NOTICE_PERIOD,
         [("notice of termination", "P6W")]),
        ("Pay within thirty (30) days of the invoice.", FindingKind.NOTICE_PERIOD, []),
        ("Return the data within 10 days after termination.", FindingKind.TERM, []),
    ],
)  # fmt: skip
def test_durations(analyse: Analyse, text: str, kind: FindingKind, found: list[tuple[str, str]]) -> None:
    """Terms, renewals and notice periods are told from each other and from deadlines."""
    assert values(analyse(text), kind) == found


@pytest.mark.parametrize(
    ("text", "law", "venue"),
    [
        (
            "This is governed by the laws of England and Wales, and courts in London decide.",
            "England and Wales",
            "London",
        ),
        ("Governed by German law. The seat of arbitration is Zurich.", "German", "Zurich"),
        ("It shall be construed under the laws of the Province of Ontario, Canada.", "Ontario, Canada", None),
        ("A company organised under the laws of France.", None, None),
        ("The Supplier must obey all applicable laws of any country.", None, None),
    ],
)
def test_law(analyse: Analyse, text: str, law: str | None, venue: str | None) -> None:
    """The governing law and the courts; a law under which a company exists is not the contract's."""
    report = analyse(text)
    assert [value for _, value in values(report, FindingKind.GOVERNING_LAW)] == [law] * (law is not None)
    assert [value for _, value in values(report, FindingKind.VENUE)] == [venue] * (venue is not None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'This Agreement is between ACME Corp., a Delaware corporation ("Company"), and Jane Doe, an '
            'individual residing in Austin ("Consultant").',
            [("Company", "ACME Corp."), ("Consultant", "Jane Doe")],
        ),
        (
            "1. Parties\n\n(1) **Blue Ltd**, whose office is in York (hereinafter called the “**Seller**”);"
            " and\n\n(2) **Red PLC** (the “**Buyer**”).",
            [("Seller", "Blue Ltd"), ("Buyer", "Red PLC")],
        ),
        (
            "An agreement between Alpha GmbH and Beta Industries LLC.",
            [("party", "Alpha GmbH"), ("party", "Beta Industries LLC")],
        ),
        ("They discuss certain Services (the “Services”) and a plan (the “Plan”).", []),
    ],
)
def test_parties(analyse: Analyse, text: str, found: list[tuple[str, str]]) -> None:
    """Names with the roles a contract gives them; definitions of other things are no parties."""
    assert values(analyse(text), FindingKind.PARTY) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Tenant agrees to pay rent and the Landlord must repair.",
         [("Tenant", "agrees to pay rent"), ("Landlord", "must repair")]),
        ("Each of the Parties shall bear its costs.", [("Each of the Parties", "shall bear its costs")]),
        ("The Vendor, at its own expense, is required to insure.", [("Vendor", "is required to insure")]),
        ("The Client shall be entitled to rest. The Vendor shall not be liable. This Agreement shall end.", []),
    ],
)  # fmt: skip
def test_obligations(analyse: Analyse, text: str, found: list[tuple[str, str]]) -> None:
    """Who must do what; rights, and what nobody has to do, are no obligations."""
    assert values(analyse(text), FindingKind.OBLIGATION) == found


@pytest.mark.parametrize(
    "text",
    [
        "Either party may terminate this Agreement at any time without cause.",
        "The parties may amend this Agreement from time to time by a document signed by both.",
        "This Agreement shall not automatically renew.",
        "Each party’s total liability shall not exceed the fees paid.",
        "Nothing in this Agreement limits liability for fraud; such liability is unlimited.",
        "The Supplier shall indemnify the Customer. The Customer shall indemnify the Supplier.",
        "Each party shall indemnify the other.",
        "Neither party may assign this Agreement without consent.",
        "The Supplier may not terminate this Agreement immediately.",
        "The Supplier grants a perpetual licence to use confidential results.",
        "Nothing in this Agreement shall restrict the Supplier, who must not be told whom to compete with.",
        "Overdue amounts bear interest at 1% per month.",
    ],
)
def test_fair_clauses_are_no_risks(analyse: Analyse, text: str) -> None:
    """Words of a risk in a clause that is mutual, negated or harmless raise no alarm."""
    assert analyse(text).of_kind(FindingKind.RISK) == []
