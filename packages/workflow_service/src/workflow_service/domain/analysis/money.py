"""Reads amounts of money and says what they are for."""

import re
from collections.abc import Iterator
from decimal import Decimal

from workflow_service.domain.analysis.sentences import Sentence
from workflow_service.domain.contract import Finding, FindingKind

_CODES = "USD|EUR|GBP|CHF|CAD|AUD|NZD|JPY|SEK|NOK|DKK|INR"
_SIGNS = {"US$": "USD", "C$": "CAD", "CA$": "CAD", "A$": "AUD", "AU$": "AUD", "NZ$": "NZD", "$": "USD", "€": "EUR",
          "£": "GBP", "¥": "JPY"}  # fmt: skip
_NAMES = {"dollar": "USD", "euro": "EUR", "pound": "GBP", "u": "USD"}
_SCALES = {"thousand": 1_000, "k": 1_000, "million": 1_000_000, "m": 1_000_000, "billion": 10**9, "bn": 10**9}

_SIGN = "|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True))
_SCALE = r"(?:\s?(?P<scale>thousand|million|billion|bn|[mk])\b)"
# 20.000,00 and 20,000.00 say the same; 20.000 alone may be twenty or twenty thousand and is not taken for either.
_AMOUNT = (
    r"(?P<amount>\d{1,3}(?:,\d{3}){1,5}(?:\.\d{1,2})?|\d{1,3}(?:\.\d{3}){1,5},\d{2}|\d{1,15}(?:\.\d{1,2})?"
    r"|\d{1,4}\.\d{1,4}(?=\s?(?:thousand|million|billion|bn|[mk])\b))(?![.,]?\d)"
)
_BEFORE = re.compile(
    rf"(?<![\w$€£¥])(?:(?P<code>{_CODES})\s?(?:{_SIGN})?|(?P<sign>{_SIGN}))\s?{_AMOUNT}{_SCALE}?(?!\w)", re.ASCII
)
_BEHIND = re.compile(
    rf"(?<![\w.,$€£¥]){_AMOUNT}{_SCALE}?\s?(?:(?P<code>{_CODES})|(?P<sign>[€£])"
    r"|(?P<name>U\.?S\.?\s+dollar|dollar|euro|pound)s?(?:\s+sterling)?)(?!\w)",
    re.ASCII | re.IGNORECASE,
)

_PURPOSES = (
    ("liability cap", re.compile(r"\bliab\w+[^;]{0,120}(?:exceed|limited\s+to|capped)", re.IGNORECASE)),
    ("penalty", re.compile(r"liquidated\s+damages|\bpenalt|\blate\s+(?:fee|charge)", re.IGNORECASE)),
    ("insurance", re.compile(r"\binsur", re.IGNORECASE)),
    ("expenses", re.compile(r"\bexpens", re.IGNORECASE)),
    ("deposit", re.compile(r"\bdeposit", re.IGNORECASE)),
    ("fee", re.compile(r"\b(?:fees?|prices?|charges?|rates?|payments?|salary|rent)\b", re.IGNORECASE)),
)


def find_money(sentence: Sentence) -> Iterator[Finding]:
    """Yield the amounts of a sentence as ``50000.00 USD``: a decimal number and an ISO 4217 code."""
    for match, value in read_amounts(sentence.text):
        yield sentence.finding(FindingKind.MONEY, _purpose(sentence), value, (match.start(), match.end()))


def read_amounts(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield the places of amounts and the amounts, in order."""
    taken_to = 0
    for match in sorted([*_BEFORE.finditer(text), *_BEHIND.finditer(text)], key=re.Match.start):
        if match.start() >= taken_to:
            taken_to = match.end()
            yield match, f"{_number(match)} {_currency(match)}"


def _number(match: re.Match[str]) -> str:
    written = match["amount"]
    is_european = written[-3:-2] == "," and "." in written
    plain = written.replace(".", "").replace(",", ".") if is_european else written.replace(",", "")
    scale = match["scale"]
    if scale is None:
        return plain
    return f"{(Decimal(plain) * _SCALES[scale.lower()]).normalize():f}"


def _currency(match: re.Match[str]) -> str:
    if code := match["code"]:
        return code.upper()
    if sign := match["sign"]:
        return _SIGNS[sign]
    name = match["name"].lower()
    return next(code for word, code in _NAMES.items() if name.startswith(word))


def _purpose(sentence: Sentence) -> str:
    for text in (sentence.text, sentence.context):
        for label, pattern in _PURPOSES:
            if pattern.search(text):
                return label
    return "amount"
