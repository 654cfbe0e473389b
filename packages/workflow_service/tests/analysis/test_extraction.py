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
        ("A breach that is not remedied within 14 days ends it.", FindingKind.NOTICE_PERIOD,
         [("cure period", "P14D")]),
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
        ("This Licence is governed by Irish Law.", "Irish", None),
        (
            "Governed in all respects by the laws of the United States and of the State of Ohio.",
            "United States and Ohio",
            None,
        ),
        ("The courts residing in Cook County, Illinois, decide.", None, "Cook County, Illinois"),
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
        (
            '1. Licence\n\nThis is a contract between you and Acme Tools\nCorporation ("Acme").',
            [("Acme", "Acme Tools Corporation")],
        ),
        ("The terms agreed between Acme, Inc., and you, the user.", [("party", "Acme, Inc.")]),
        ('"Acme" means Acme Limited whose office is in Leeds.', [("Acme", "Acme Limited")]),
        ("The difference between you and Acme is small.", []),
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
        ("You must keep this notice, and you agree not to remove it.",
         [("You", "must keep this notice"), ("You", "agree not to remove it")]),
        ("You agree that you will not export it. YOU SHALL PAY.",
         [("You", "agree that you will not export it"), ("YOU", "SHALL PAY")]),
        ("Your use of the Tool must comply with the law.",
         [("Your use of the Tool", "must comply with the law")]),
        ("The Licensee may not copy it.", [("Licensee", "may not copy it")]),
        ("You will be notified. You agree to be bound by it. No dealing between the parties shall be used. "
         "The Vendor shall have sole right and title. Any third party shall leave.", []),
        ("The Client shall be entitled to rest. The Vendor shall not be liable. This Agreement shall end.", []),
    ],
)  # fmt: skip
def test_obligations(analyse: Analyse, text: str, found: list[tuple[str, str]]) -> None:
    """Who must do what; rights, and what nobody has to do, are no obligations."""
    assert values(analyse(text), FindingKind.OBLIGATION) == found


@pytest.mark.parametrize(
    ("text", "risks"),
    [
        ("Acme shall not be liable for any indirect damages.", ["exclusion of liability"]),
        ("IN NO EVENT SHALL ACME BE LIABLE FOR LOSS OF PROFIT.", ["exclusion of liability"]),
        ("No licensor of Acme shall have any liability for damages.", ["exclusion of liability"]),
        (
            "In no event will Acme’s and its affiliates total liability exceed US$10.00.",
            ["liability cap for one side"],
        ),
        ("The maximum liability of Acme to you shall not exceed the fees.", ["liability cap for one side"]),
        ("Acme may assign or transfer this Agreement.", ["free assignment by one side"]),
        ("You agree to indemnify Acme.", ["one-sided indemnity"]),
        ("The Client shall not purchase such goods from any third party.", ["exclusivity"]),
        ("The Client shall not use the services of other suppliers.", ["exclusivity"]),
    ],
)
def test_risks_of_terms_that_one_side_wrote(analyse: Analyse, text: str, risks: list[str]) -> None:
    """As they are worded in licences and terms of use, which call the other side «you»."""
    assert [label for label, _ in values(analyse(text), FindingKind.RISK)] == risks


@pytest.mark.parametrize(
    "text",
    [
        "Neither party shall be liable for indirect damages.",
        "No party shall have any liability for such loss.",
        "The Client may assign this Agreement with the consent of the Vendor.",
        "These limits of liability are part of this Agreement, including, without limitation, its prices.",
        "The Vendor may, at any time, terminate this Agreement if: (a) the Client does not pay.",
        "You will not use the Tool for the benefit of any third party.",
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
