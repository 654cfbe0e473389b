"""How good findings are: precision, recall and F1 by row of a table, against what a reader found."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workflow_service.domain.contract import Finding, FindingKind
from workflow_service.domain.document import Span

_NORMALISED = frozenset({"date", "term", "renewal", "notice_period", "money"})

KINDS: Mapping[str, str] = {kind.value: kind.value for kind in FindingKind}
"""Every kind of finding is judged, each in a row of its own."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a reader found: a kind, its value (of a risk, its name; empty: any), and the words at its place."""

    kind: str
    value: str
    place: str


@dataclass(frozen=True, slots=True)
class Gold:
    """What counts in a row of the table: found if a finding of one of the kinds is at one of the places.

    A kind is that of a finding, or ``risk:name``.
    """

    row: str
    kinds: frozenset[str]
    value: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """A text and what a reader found in it.

    ``judged`` says in which row a finding counts as wrong that proves nothing; findings of other kinds are not
    judged, for the reader did not look for all of them.
    """

    title: str
    text: str
    gold: tuple[Gold, ...]
    judged: Mapping[str, str] = field(default_factory=lambda: KINDS)


@dataclass(slots=True)
class Score:
    """Counts of one row; ``is_judged`` if wrong findings are counted too."""

    found: int = 0
    missed: int = 0
    wrong: int = 0
    is_judged: bool = False
    examples: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float | None:
        """Share of the findings that are right; None if there are none, or nobody judged them."""
        findings = self.found + self.wrong
        return self.found / findings if findings and self.is_judged else None

    @property
    def recall(self) -> float | None:
        """Share of the labels that are found; None if there are none."""
        labels = self.found + self.missed
        return self.found / labels if labels else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both; None if either is unknown."""
        if self.precision is None or self.recall is None:
            return None
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    def add(self, other: "Score") -> None:
        """Count another contract's with this one's."""
        self.found += other.found
        self.missed += other.missed
        self.wrong += other.wrong
        self.is_judged |= other.is_judged
        self.examples += other.examples


def labelled(text: str, labels: Iterable[Label]) -> tuple[Gold, ...]:
    """Return labels with their places; white space may differ.

    Raises:
        ValueError: The words of a label do not stand in the text: it is another version of the contract.
    """
    found: list[Gold] = []
    for label in labels:
        pattern = r"\s+".join(map(re.escape, label.place.split()))
        spans = tuple(Span(*match.span()) for match in re.finditer(pattern, text))
        if not spans:
            raise ValueError(f"{label.place!r} does not stand in the text")
        kind, value = (f"risk:{label.value}", "") if label.kind == "risk" else (label.kind, label.value)
        found.append(Gold(label.kind, frozenset({kind}), value, spans))
    return tuple(found)


def score(contract: Contract, findings: Sequence[Finding]) -> Mapping[str, Score]:
    """Return the scores, by row."""
    scores: defaultdict[str, Score] = defaultdict(Score)
    proved: set[int] = set()
    for gold in contract.gold:
        proving = [index for index, finding in enumerate(findings) if _proves(finding, gold)]
        proved.update(proving)
        counted = scores[gold.row]
        if proving:
            counted.found += 1
        else:
            counted.missed += 1
            words = contract.text[gold.spans[0].start : gold.spans[0].end]
            counted.examples.append(f"missed in {contract.title}: {gold.value} «{_one_line(words)}»")
    for index, finding in enumerate(findings):
        row = next((contract.judged[kind] for kind in _kinds(finding) if kind in contract.judged), None)
        if row is None:
            continue
        scores[row].is_judged = True
        if index not in proved:
            scores[row].wrong += 1
            named = finding.label if finding.kind is FindingKind.RISK else finding.value
            scores[row].examples.append(
                f"wrong in {contract.title}: {_one_line(named)} «{_one_line(finding.quote)}»"
            )
    return scores


def _kinds(finding: Finding) -> tuple[str, str]:
    return f"{finding.kind.value}:{finding.label}", finding.kind.value


def _proves(finding: Finding, gold: Gold) -> bool:
    if not gold.kinds & set(_kinds(finding)):
        return False
    kind = finding.kind.value
    if kind == "party" and gold.value:  # named at many places: the name counts
        return _plain(gold.value) == _plain(finding.value)
    is_there = any(finding.span.start < span.end and span.start < finding.span.end for span in gold.spans)
    if not is_there or not gold.value:
        return is_there
    if kind in _NORMALISED:
        return finding.value == gold.value
    if kind in ("governing_law", "venue"):
        return _plain(gold.value) in _plain(finding.value) or _plain(finding.value) in _plain(gold.value)
    return True


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:90]
