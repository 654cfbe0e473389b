"""Reads who must do what, also where a list names who before it and what in its items."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from workflow_service.domain.analysis.sentences import Sentence
from workflow_service.domain.contract import Finding, FindingKind

_MOST_ROLES = 20
_COMMON_ROLES = (
    "Disclosing Party", "Receiving Party", "Indemnifying Party", "Party", "Parties", "party", "parties", "Company",
    "Customer", "Client", "Supplier", "Vendor", "Provider", "Contractor", "Consultant", "Employer", "Employee",
    "You", "you", "YOU", "Recipient", "Subscriber", "User", "End User", "Licensor", "Licensee", "Landlord",
    "Tenant", "Seller", "Buyer", "Purchaser", "Lender", "Borrower",
)  # fmt: skip
_MODAL = (
    r"(?P<modal>(?i:shall|must|will|may\s+not|(?:agrees?|undertakes?|covenants?)\s+(?:not\s+)?to"
    r"|agrees?\s+that\s+(?:it|they|you)\s+(?:shall|will)|(?:is|are)\s+(?:required|obliged)\s+to))"
)
_ADVERBS = r"(?:each\s+|hereby\s+|also\s+|further\s+|specifically\s+|expressly\s+)?"
_OF_YOURS = r"[Yy]our\s+[a-z]{1,20}(?:\s+of\s+(?:the\s+)?\w{1,30})?"
_PART_OF_ANOTHER_SUBJECT = re.compile(
    r"\b(?:between|among|of|by|with|to|from|for|against)\s+(?:(?:both|either|each)\s+of\s+)?$", re.IGNORECASE
)
_NO_DUTY = re.compile(
    r",?\s+(?:(?:also|at\s+all\s+times)\s+)?(?:be\s+(?:entitled|deemed|liable|free|notified|informed)\b"
    r"|have\s+(?:(?:the|sole|exclusive|full)\s+(?:\w+\s+)?(?:right|title)|no\b)"
    r"|be\s+bound\b|all\s+(?:of\s+)?(?:the\s+)?terms\b"
    r"|not\s+be\s+(?:liable|responsible|required|obliged|deemed)\b)",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(r"[^.;]{0,80}:\s*$")


@dataclass(frozen=True, slots=True)
class _Lead:
    """Who must do what the items below a clause say."""

    who: str
    modal: str
    level: int


class Duties:
    """Finds the obligations of one contract; its sentences must be shown in order."""

    def __init__(self, roles: Iterable[str]) -> None:
        known = dict.fromkeys([*list(roles)[:_MOST_ROLES], *_COMMON_ROLES])
        alternatives = "|".join(
            re.escape(role).replace(r"\ ", r"\s+") for role in sorted(known, key=len, reverse=True)
        )
        self._duty = re.compile(
            rf"(?<![\w’'-])(?<!third\s)(?P<who>(?:(?:[Tt]he|[Ee]ach|[Ee]ither|[Nn]either|[Bb]oth|[Ss]uch|[Ee]very|[Nn]o)\s+"
            rf"(?:of\s+the\s+)?)?(?:{alternatives}|{_OF_YOURS})(?:\s+and\s+(?:the\s+)?(?:{alternatives}))?)"
            rf"(?:,[^,.;]{{1,60}},)?\s+{_ADVERBS}{_MODAL}\b"
        )
        self._lead: _Lead | None = None

    def find(self, sentence: Sentence) -> Iterator[Finding]:
        """Yield the obligations of the next sentence."""
        if self._lead is not None and sentence.clause.level <= self._lead.level:
            self._lead = None
        matches = [
            match
            for match in self._duty.finditer(sentence.text)
            if not _PART_OF_ANOTHER_SUBJECT.search(sentence.text, max(0, match.start() - 30), match.start())
        ]
        if not matches and self._lead is not None:
            value = f"{self._lead.modal} {_action(sentence.text)}"
            yield sentence.finding(FindingKind.OBLIGATION, self._lead.who, value, sentence.whole())
        yield from self._duties(sentence, matches)

    def _duties(self, sentence: Sentence, matches: Sequence[re.Match[str]]) -> Iterator[Finding]:
        bounds = [*(match.start() for match in matches), len(sentence.text)]
        for match, end in zip(matches, bounds[1:], strict=True):
            if _NO_DUTY.match(sentence.text, match.end()):
                continue
            who, modal = _who(match["who"]), _one_line(match["modal"])
            if _LEAD_IN.fullmatch(sentence.text, match.end(), end):
                self._lead = _Lead(who, modal, sentence.clause.level)
                continue
            place = match.start(), match.start() + len(sentence.text[match.start() : end].rstrip(" ,\n"))
            value = _action(sentence.text[match.start("modal") : place[1]])
            yield sentence.finding(FindingKind.OBLIGATION, who, value, place)


def _who(subject: str) -> str:
    """Return the subject without its article, beginning with a capital."""
    words = re.sub(r"^(?:the|such)\s+", "", _one_line(subject), flags=re.IGNORECASE)
    return words[:1].upper() + words[1:]


def _action(text: str) -> str:
    """Return what is to be done without what only joins it to the next item of a list."""
    return re.sub(r"[;,.]?(?:\s(?:and|or))?$", "", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
