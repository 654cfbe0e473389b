"""Reads lengths of time, in words and digits, and says what they are the length of: term, renewal, notice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from workflow_service.domain.analysis.sentences import Sentence
from workflow_service.domain.contract import Finding, FindingKind

_SMALL = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    **{word: value for value, word in enumerate(_SMALL, start=1)},
    **{word: value * 10 for value, word in enumerate(_TENS, start=2)},
}
_BELOW_HUNDRED = rf"(?:(?:{'|'.join(_TENS)})(?:[-\s](?:{'|'.join(_SMALL[:9])}))?|{'|'.join(reversed(_SMALL))})"
_WORDS = rf"(?:(?:{'|'.join(_SMALL[:9])})\s+hundred(?:\s+(?:and\s+)?{_BELOW_HUNDRED})?|{_BELOW_HUNDRED})"
_DURATION = re.compile(
    rf"\b(?:(?P<words>{_WORDS})[\s-]{{0,3}}(?:\(\s?(?P<digits>\d{{1,4}})\s?\)[\s-]{{0,3}})?"
    rf"|(?P<figure>\d{{1,4}})[\s-]{{0,3}}(?:\([^()]{{1,40}}\)[\s-]{{0,3}})?)"
    r"(?:(?P<counted>business|working|calendar)\s{1,3})?(?P<unit>day|week|month|year)s?\b",
    re.IGNORECASE,
)

_NOTICE_BEHIND = re.compile(
    r"[’']?s?\s+(?:prior\s+|advance\s+|written\s+){0,3}notice\b"
    r"|[’']?\s+(?:after|of|following|from)\s+(?:receipt\s+of\s+|receiving\s+)?(?:such\s+|a\s+|the\s+)?"
    r"(?:prior\s+|written\s+){0,2}notice\b",
    re.IGNORECASE,
)
_NOTICE_BEFORE = re.compile(
    r"\bnotice\b[^,;]{0,60}\b(?:at\s+least|not\s+less\s+than|no\s+less\s+than|no\s+later\s+than|of|minimum\s+of)\s+$",
    re.IGNORECASE,
)
_RENEWAL_BEFORE = re.compile(r"\b(?:renew\w*|successive|additional|further|extend\w*)\b[^;]{0,60}$", re.IGNORECASE)
_TERM_BEFORE = re.compile(
    r"(?:\bterm\s+(?:of\s+th(?:is|e)\s+\w{1,20}\s+)?(?:of|is|shall\s+be|will\s+be)"
    r"|\b(?:remains?|continues?|continuing)\s+(?:in\s+(?:full\s+)?(?:force|effect)\s+(?:and\s+effect\s+)?)?for"
    r"|\bin\s+(?:full\s+)?(?:force|effect)\s+(?:and\s+effect\s+)?for)"
    r"\s+(?:an?\s+|the\s+)?(?:initial\s+|minimum\s+|fixed\s+)?(?:(?:term|period)\s+of\s+)?(?:at\s+least\s+)?$",
    re.IGNORECASE,
)
_SURVIVAL_BEHIND = re.compile(
    r"\s+(?:thereafter\b|(?:after|following)\s+(?:the\s+)?(?:this\s+agreement\b|(?:its\s+|any\s+)?"
    r"(?:terminat|expir|end\b)))",
    re.IGNORECASE,
)
_DEADLINE_BEFORE = re.compile(r"\b(?:within|by)\s+(?:at\s+most\s+)?$", re.IGNORECASE)
_CURE_BEFORE = re.compile(
    r"\b(?:cure[ds]?|remed(?:y|ies|ied)|fix(?:ed|es)?|rectif(?:y|ies|ied))\b[^;]{0,60}\bwithin\s+$", re.IGNORECASE
)
_NOTICE_LABELS = (
    (re.compile(r"\bcure\b|\bremed(?:y|ies|ied)\b", re.IGNORECASE), "cure period"),
    (re.compile(r"renew", re.IGNORECASE), "notice of non-renewal"),
    (re.compile(r"terminat", re.IGNORECASE), "notice of termination"),
    (re.compile(r"\b(?:amend|modif|chang)", re.IGNORECASE), "notice of change"),
)


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time in ISO 8601, and where it stands."""

    iso: str
    start: int
    end: int


def find_durations(sentence: Sentence) -> Iterator[Finding]:
    """Yield terms, renewals and notice periods as ISO 8601 durations; other lengths of time are left alone."""
    for duration in read_durations(sentence.text):
        before = sentence.text[max(0, duration.start - 110) : duration.start]
        behind = sentence.text[duration.end : duration.end + 80]
        meaning = _meaning(sentence.text, before, behind)
        if meaning is not None:
            kind, label = meaning
            yield sentence.finding(kind, label, duration.iso, (duration.start, duration.end))


def read_durations(text: str) -> Iterator[Duration]:
    """Yield the lengths of time in a text, whatever they are the length of."""
    for match in _DURATION.finditer(text):
        number = match["digits"] or match["figure"]
        count = int(number) if number else _spoken(match["words"])
        unit = match["unit"][0].upper()
        yield Duration(f"P{count}{unit}", match.start(), match.end())


def _spoken(words: str) -> int:
    """Return the number that words up to nine hundred and ninety-nine say."""
    total = 0
    for word in re.split(r"[-\s]+", words.lower()):
        total = total * 100 if word == "hundred" else total + _VALUES.get(word, 0)  # «and» adds nothing
    return total


def _meaning(text: str, before: str, behind: str) -> tuple[FindingKind, str] | None:
    if _NOTICE_BEHIND.match(behind) or _NOTICE_BEFORE.search(before):
        label = next((label for pattern, label in _NOTICE_LABELS if pattern.search(text)), "notice")
        return FindingKind.NOTICE_PERIOD, label
    if _CURE_BEFORE.search(before):
        return FindingKind.NOTICE_PERIOD, "cure period"
    if _SURVIVAL_BEHIND.match(behind) and not _DEADLINE_BEFORE.search(before):
        return FindingKind.TERM, "survival"
    if _RENEWAL_BEFORE.search(before):
        return FindingKind.RENEWAL, "renewal term"
    if _TERM_BEFORE.search(before) and "surviv" not in text.lower():
        return FindingKind.TERM, "initial term" if "initial" in before.lower() else "term"
    return None
