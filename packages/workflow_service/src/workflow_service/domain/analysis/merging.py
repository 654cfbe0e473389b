"""Joins what the rules found with what a language model found: each thing once, and who found it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from workflow_service.domain.contract import Finding, FindingKind, FindingSource

_COMMON = 0.5  # of the shorter of two long quotes: so much in common, and they are one thing
_PLAIN_LABELS = frozenset({"party", "date", "amount", "notice", "term"})
"""Labels of rules that found nothing better: a model's word for the same thing is taken instead."""


def merge(by_rules: Sequence[Finding], by_model: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return all findings in the order of the text; one that both made is the rules', and says so.

    The rules' value and place hold: they are the same for the same text, and a model's are not.
    """
    merged: dict[FindingKind, list[Finding]] = defaultdict(list)
    for finding in by_rules:
        merged[finding.kind].append(finding)
    for finding in by_model:
        known = merged[finding.kind]
        index = next((index for index, other in enumerate(known) if _is_same(other, finding)), None)
        if index is None:
            known.append(finding)
        elif known[index].source is not FindingSource.MODEL:  # else said again, of another window
            known[index] = _confirmed(known[index], finding)
    return tuple(sorted(chain.from_iterable(merged.values()), key=lambda finding: finding.span.start))


def _confirmed(by_rules: Finding, by_model: Finding) -> Finding:
    has_better_label = by_rules.label in _PLAIN_LABELS and by_model.label.lower() not in _PLAIN_LABELS
    label = by_model.label if has_better_label else by_rules.label
    return replace(by_rules, label=label, source=FindingSource.BOTH)


def _is_same(one: Finding, other: Finding) -> bool:
    """Tell whether two findings of one kind are about the same thing."""
    match one.kind:
        case FindingKind.PARTY:
            return _name(one) == _name(other)
        case FindingKind.RISK:
            is_one_risk = one.label.casefold() == other.label.casefold()
            return is_one_risk and (one.clause == other.clause or _overlap(one, other) > 0)
        case FindingKind.OBLIGATION:
            shorter = min(len(one.quote), len(other.quote))
            return _overlap(one, other) > shorter * _COMMON
        case _:
            return _overlap(one, other) > 0


def _overlap(one: Finding, other: Finding) -> int:
    """Return how many characters two findings have in common; not above 0 if none."""
    return min(one.span.end, other.span.end) - max(one.span.start, other.span.start)


def _name(party: Finding) -> str:
    return "".join(filter(str.isalnum, party.value)).casefold()
