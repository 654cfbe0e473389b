"""A contract as it is understood: its clauses, what is found in them, and what that amounts to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from workflow_service.domain.document import Span
from workflow_service.domain.run import JsonObject

_TOP_RISKS = 5


class FindingKind(StrEnum):
    """What a finding is about."""

    PARTY = "party"
    DATE = "date"
    TERM = "term"
    RENEWAL = "renewal"
    NOTICE_PERIOD = "notice_period"
    GOVERNING_LAW = "governing_law"
    VENUE = "venue"
    MONEY = "money"
    OBLIGATION = "obligation"
    RISK = "risk"


class Severity(StrEnum):
    """How much a finding matters to who signs; only risks and doubtful values have one."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for low to 2 for high."""
        return list(Severity).index(self)


class FindingSource(StrEnum):
    """Who found it."""

    RULES = "rules"
    MODEL = "model"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Clause:
    """A numbered or headed part of a contract; the clauses of a text follow each other without a gap.

    ``id`` is unique within the text: the number as it is written, with that of its list around it (``3.1(a)``).
    ``body`` is the part of ``span`` behind number and title. ``parent`` is the id of the clause it stands under.
    """

    id: str
    number: str
    title: str
    level: int
    parent: str | None
    page: int
    span: Span
    body: Span

    def to_json(self) -> JsonObject:
        """Return the clause as JSON; spans as ``[start, end]``."""
        return {
            "id": self.id,
            "number": self.number,
            "title": self.title,
            "level": self.level,
            "parent": self.parent,
            "page": self.page,
            "span": [self.span.start, self.span.end],
            "body": [self.body.start, self.body.end],
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> "Clause":
        """Return the clause that to_json wrote."""
        return cls(**{**data, "span": Span(*data["span"]), "body": Span(*data["body"])})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found, and the place in the text that proves it: ``text[span.start:span.end] == quote``.

    ``label`` says which of its kind it is: a party's role, whose obligation, the name of a risk. ``value`` is
    normalised: ISO 8601 dates and durations, ``50000.00 USD``, a name; for a risk, why it is one. ``clause`` is
    the id of the clause around it.
    """

    kind: FindingKind
    label: str
    value: str
    quote: str
    span: Span
    clause: str
    page: int
    severity: Severity | None = None
    advice: str = ""
    source: FindingSource = FindingSource.RULES

    def to_json(self) -> JsonObject:
        """Return the finding as JSON; the span as ``[start, end]``."""
        return {
            "kind": self.kind.value,
            "label": self.label,
            "value": self.value,
            "quote": self.quote,
            "span": [self.span.start, self.span.end],
            "clause": self.clause,
            "page": self.page,
            "severity": None if self.severity is None else self.severity.value,
            "advice": self.advice,
            "source": self.source.value,
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> "Finding":
        """Return the finding that to_json wrote."""
        severity = data["severity"]
        changed: dict[str, Any] = {
            "kind": FindingKind(data["kind"]),
            "span": Span(*data["span"]),
            "severity": None if severity is None else Severity(severity),
            "source": FindingSource(data.get("source", FindingSource.RULES)),  # runs begun before it had one
        }
        return cls(**{**data, **changed})


@dataclass(frozen=True, slots=True)
class ContractReport:
    """What is known about a contract: its clauses in order, and the findings in the order of the text."""

    clauses: tuple[Clause, ...]
    findings: tuple[Finding, ...]

    def of_kind(self, kind: FindingKind) -> Sequence[Finding]:
        """Return the findings of one kind, in order."""
        return [finding for finding in self.findings if finding.kind is kind]

    def top_risks(self) -> Sequence[Finding]:
        """Return the gravest risks, the gravest first, at most five."""
        risks = self.of_kind(FindingKind.RISK)
        return sorted(risks, key=lambda risk: -risk.severity.rank if risk.severity else 1)[:_TOP_RISKS]

    def summary(self) -> JsonObject:
        """Return what a reader wants to know first; None where the contract does not say."""
        return {
            "parties": [{"name": party.value, "role": party.label} for party in self.of_kind(FindingKind.PARTY)],
            "effective_date": self._first(FindingKind.DATE, "effective date", "agreement date"),
            "term": self._first(FindingKind.TERM, "initial term", "term"),
            "governing_law": self._first(FindingKind.GOVERNING_LAW, "governing law"),
            "findings_by_kind": dict(Counter(finding.kind.value for finding in self.findings)),
            "risks_by_severity": dict(
                Counter(risk.severity.value for risk in self.of_kind(FindingKind.RISK) if risk.severity)
            ),
            "top_risks": [
                {key: risk.to_json()[key] for key in ("label", "severity", "clause", "page", "value", "advice")}
                for risk in self.top_risks()
            ],
        }

    def to_json(self) -> JsonObject:
        """Return ``clauses``, ``findings`` and ``summary`` as JSON."""
        return {
            "clauses": [clause.to_json() for clause in self.clauses],
            "findings": [finding.to_json() for finding in self.findings],
            "summary": self.summary(),
        }

    def _first(self, kind: FindingKind, *labels: str) -> str | None:
        """Return the value of the first finding with the first of the labels that any has."""
        for label in labels:
            for finding in self.of_kind(kind):
                if finding.label == label:
                    return finding.value
        return None
