"""What a language model is asked for, and what of its answer is believed: what stands in the text, at a place."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from workflow_service.domain.analysis.dates import read_dates
from workflow_service.domain.analysis.durations import read_durations
from workflow_service.domain.analysis.money import read_amounts
from workflow_service.domain.analysis.risks import INDEMNITY_RISK, RULES
from workflow_service.domain.analysis.segmentation import page_at
from workflow_service.domain.contract import Clause, Finding, FindingKind, FindingSource, Severity
from workflow_service.domain.document import Page, Span
from workflow_service.domain.run import JsonObject

_LONGEST_LABEL = 80  # characters, as of the next two
_LONGEST_VALUE = 600
_LONGEST_ADVICE = 400

_ISO_DURATION = re.compile(r"P[1-9]\d{0,3}[DWMY]")
_AMOUNT = re.compile(r"\d{1,15}(?:\.\d{1,4})? [A-Z]{3}")
_DURATIONS = frozenset({FindingKind.TERM, FindingKind.RENEWAL, FindingKind.NOTICE_PERIOD})
_NAMES = frozenset({FindingKind.PARTY, FindingKind.GOVERNING_LAW, FindingKind.VENUE})

FINDINGS_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "findings": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "kind": {"type": "string", "enum": [kind.value for kind in FindingKind]},
                    "label": {
                        "type": "string",
                        "description": "a party's role, what a date or an amount is for, whose obligation, or the "
                        "name of a risk",
                    },
                    "value": {
                        "type": "string",
                        "description": "a name; a date as 2025-03-01; a length of time as P30D, P6M or P2Y; an "
                        "amount as 50000.00 USD; what must be done; for a risk, why it is one",
                    },
                    "quote": {
                        "type": "string",
                        "description": "the words of the contract that prove it, copied exactly, few",
                    },
                    "severity": {"type": ["string", "null"], "enum": [*(each.value for each in Severity), None]},
                    "advice": {"type": "string", "description": "for a risk, what to ask for instead; else empty"},
                },
                "required": ["kind", "label", "value", "quote", "severity", "advice"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["findings"],
    "additionalProperties": False,
}
"""The schema of an answer: the same findings that the rules make, without their places."""

RISK_NAMES = tuple(dict.fromkeys([*(rule.risk.name for rule in RULES), INDEMNITY_RISK.name]))
"""The risks that the rules know: a model that means one of them should call it so."""


class Doubt(StrEnum):
    """Why something a model said is not believed."""

    NOT_IN_TEXT = "quote_not_in_text"
    BAD_VALUE = "value_not_in_quote"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Believed:
    """The findings of an answer that stand in the text, and how many others there were, by reason."""

    findings: tuple[Finding, ...]
    dropped: Mapping[Doubt, int]


def believe(
    answer: Mapping[str, Any], text: str, window: Span, pages: Sequence[Page], clauses: Sequence[Clause]
) -> Believed:
    """Return what of an answer about a window of ``text`` can be proved; the answer must fit `FINDINGS_SCHEMA`.

    A quote must stand in the window; white space and the shapes of quotation marks and dashes do not count. Where
    the rules can read the quote, their reading of the value holds; a name must be in the quote.
    """
    reader = _Window(text, window)
    taken: set[tuple[FindingKind, int]] = set()
    findings: list[Finding] = []
    dropped: Counter[Doubt] = Counter()
    for said in answer["findings"]:
        kind = FindingKind(said["kind"])
        places = reader.places(said["quote"])
        place = next((span for span in places if (kind, span.start) not in taken), None)
        if place is None:
            dropped[Doubt.REPEATED if places else Doubt.NOT_IN_TEXT] += 1
            continue
        clause = clauses[bisect_right(clauses, place.start, key=lambda each: each.span.start) - 1]
        place = _within(text, place, clause.span)
        quote = text[place.start : place.end]
        value = _value(kind, _one_line(said["value"], _LONGEST_VALUE), quote)
        if value is None:
            dropped[Doubt.BAD_VALUE] += 1
            continue
        taken.add((kind, place.start))
        label = _one_line(said["label"], _LONGEST_LABEL) or kind.value.replace("_", " ")
        findings.append(
            Finding(
                kind,
                label,
                value,
                quote,
                place,
                clause.id,
                page_at(pages, place.start),
                _severity(kind, said["severity"]),
                _one_line(said["advice"], _LONGEST_ADVICE),
                FindingSource.MODEL,
            )
        )
    return Believed(tuple(findings), dict(dropped))


class _Window:
    """Finds quotes in a window: both are compared in a plain form, whose characters know where they come from."""

    def __init__(self, text: str, window: Span) -> None:
        self._plain, self._origins = _plain(text, window)

    def places(self, quote: str) -> list[Span]:
        """Return where a quote stands, in order; none if it has no letter or digit."""
        plain, _ = _plain(quote, Span(0, len(quote)))
        plain = plain.strip()
        if not any(map(str.isalnum, plain)):
            return []
        found: list[Span] = []
        at = self._plain.find(plain)
        while at >= 0:
            found.append(Span(self._origins[at], self._origins[at + len(plain) - 1] + 1))
            at = self._plain.find(plain, at + len(plain))
        return found


_PLAIN_FORMS = str.maketrans({"“": '"', "”": '"', "„": '"', "’": "'", "‘": "'", "–": "-", "—": "-", "\u2011": "-"})


def _plain(text: str, span: Span) -> tuple[str, list[int]]:
    """Return a stretch with one blank for all white space and plain marks, and where each character comes from."""
    characters: list[str] = []
    origins: list[int] = []
    for position in range(span.start, span.end):
        character = text[position]
        if character.isspace():
            if characters and characters[-1] == " ":
                continue
            character = " "
        characters.append(character)
        origins.append(position)
    return "".join(characters).translate(_PLAIN_FORMS), origins


def _within(text: str, place: Span, clause: Span) -> Span:
    """Return a place up to the end of its clause: what a finding says is looked up there."""
    end = min(place.end, clause.end)
    return Span(place.start, place.start + len(text[place.start : end].rstrip()))


def _value(kind: FindingKind, said: str, quote: str) -> str | None:
    """Return a value that its quote bears out; None if it does not."""
    if kind is FindingKind.DATE:
        return _date(said, quote)
    if kind in _DURATIONS:
        read = next((duration.iso for duration in read_durations(quote)), None)
        return read or (said if _ISO_DURATION.fullmatch(said) else None)
    if kind is FindingKind.MONEY:
        read = next((amount for _, amount in read_amounts(quote)), None)
        return read or (said if _AMOUNT.fullmatch(said) else None)
    if kind in _NAMES:
        plain_value, plain_quote = (_plain(each, Span(0, len(each)))[0].casefold() for each in (said, quote))
        return said if said and plain_value.rstrip(".") in plain_quote else None
    return said or _one_line(quote, _LONGEST_VALUE)


def _date(said: str, quote: str) -> str | None:
    read = next((day for _, day in read_dates(quote)), None)
    if read is not None:
        return read.isoformat()
    try:
        return date.fromisoformat(said).isoformat()
    except ValueError:
        return None


def _severity(kind: FindingKind, said: str | None) -> Severity | None:
    if kind is not FindingKind.RISK:
        return None
    return Severity.MEDIUM if said is None else Severity(said)


def _one_line(text: str, longest: int) -> str:
    return " ".join(text.split())[:longest]
