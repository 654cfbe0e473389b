"""Reads calendar dates and says what happens on them."""

import re
from collections.abc import Iterator
from datetime import date

from workflow_service.domain.analysis.sentences import Sentence
from workflow_service.domain.contract import Finding, FindingKind, Severity

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTH = (
    "(?:" + "|".join(f"{month[:3]}(?:{month[3:]})?" if month[3:] else month for month in _MONTHS) + r"|sept)\.?"
)
_SPELLED = re.compile(
    rf"\b(?:(?P<month1>{_MONTH})\s{{1,3}}(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?,?\s{{1,3}}(?P<year1>\d{{4}})"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s{{1,3}}(?:day\s{{1,3}}of\s{{1,3}})?(?P<month2>{_MONTH}),?\s{{1,3}}"
    r"(?P<year2>\d{4}))\b",
    re.IGNORECASE | re.ASCII,
)
_ISO = re.compile(r"(?<![\d-])(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?![\d-])", re.ASCII)
_FIGURES = re.compile(
    r"(?<![\d./-])(?P<a>\d{1,2})(?P<sep>[./-])(?P<b>\d{1,2})(?P=sep)(?P<year>\d{4})(?![./-]?\d)", re.ASCII
)

_CALLED_EFFECTIVE = re.compile(r"\s{0,3}\(?\s?(?:the\s+)?[“\"]?Effective Date", re.IGNORECASE)
_CUES = re.compile(
    r"(?P<effective>\b(?:takes?\s+effect|effective|commenc\w*|begin\w*|starts?)\b)"
    r"|(?P<agreement>\b(?:entered\s+into|made|dated)\b)"
    r"|(?P<signature>\b(?:signed|executed)\b|\bdate\s?:)"
    r"|(?P<end>\b(?:expir\w*|ends?|until|terminat\w*|through)\b)",
    re.IGNORECASE,
)
_SIGNING = re.compile(r"sign|witness|execut", re.IGNORECASE)


def find_dates(sentence: Sentence) -> Iterator[Finding]:
    """Yield the dates of a sentence in ISO 8601, and as they stand where they can be read in two ways."""
    for match, value in read_dates(sentence.text):
        place = match.start(), match.end()
        if value is not None:
            yield sentence.finding(FindingKind.DATE, _label(sentence, *place), value.isoformat(), place)
        else:
            advice = "Ask for the month as a word: this date means one day in the US and another in Europe."
            yield sentence.finding(FindingKind.DATE, "ambiguous date", match[0], place, Severity.LOW, advice)


def read_dates(text: str) -> Iterator[tuple[re.Match[str], date | None]]:
    """Yield the places of dates, and the dates; None for one that can be read in two ways."""
    for match in _SPELLED.finditer(text):
        month = match["month1"] or match["month2"]
        year, day = match["year1"] or match["year2"], match["day1"] or match["day2"]
        found = _date(int(year), _month_number(month), int(day))
        if found is not None:
            yield match, found
    for match in _ISO.finditer(text):
        found = _date(int(match["year"]), int(match["month"]), int(match["day"]))
        if found is not None:
            yield match, found
    for match in _FIGURES.finditer(text):
        readings = {
            _date(int(match["year"]), int(match["a"]), int(match["b"])),
            _date(int(match["year"]), int(match["b"]), int(match["a"])),
        } - {None}
        if readings:
            yield match, readings.pop() if len(readings) == 1 else None


def _month_number(word: str) -> int:
    return next(number for number, month in enumerate(_MONTHS, start=1) if month.startswith(word[:3].lower()))


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None  # 30 February and the like are no dates


def _label(sentence: Sentence, start: int, end: int) -> str:
    if _CALLED_EFFECTIVE.match(sentence.text, end):
        return "effective date"
    if _SIGNING.search(sentence.context):
        return "signature date"
    cues = list(_CUES.finditer(sentence.text, max(0, start - 60), start))
    return f"{cues[-1].lastgroup} date" if cues else "date"
