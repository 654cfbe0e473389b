"""The numbers that Word shows before paragraphs but does not store in their text."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from docx.oxml.ns import qn

# python-docx has no model of numbering: everything here reads lxml elements, which have no types.
_Element = Any

_LEVELS = 9  # ECMA-376 part 1, 17.9.6
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"),
          (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Level:
    """How one level of a list writes its number: ``pattern`` holds ``%1`` to ``%9``."""

    form: str
    pattern: str
    start: int


class Numbering:
    """Counts the numbered paragraphs of one document, which must be asked for in order."""

    def __init__(self, document: Any) -> None:
        self._lists = _read_lists(document)
        self._styles = {style.get(qn("w:styleId")): style for style in document.styles.element.iter(qn("w:style"))}
        self._counters: defaultdict[str, list[int | None]] = defaultdict(lambda: [None] * _LEVELS)

    def label(self, paragraph: _Element) -> str:
        """Return what stands before the paragraph's text, with the blank behind it; often nothing.

        A heading that Word does not number gets Markdown's mark, so that it is still known as a heading.
        """
        list_id, level = self._place(paragraph)
        if list_id not in self._lists:
            return self._heading_mark(paragraph)
        abstract_id, levels = self._lists[list_id]
        if level not in levels:
            return ""
        # Lists over one abstract definition go on counting where another one stopped (17.9.15).
        counters = self._counters[abstract_id]
        value = counters[level]
        counters[level] = levels[level].start if value is None else value + 1
        counters[level + 1 :] = [None] * (_LEVELS - level - 1)
        return self._written(levels, counters, level)

    def _written(self, levels: dict[int, _Level], counters: list[int | None], level: int) -> str:
        text = levels[level].pattern
        if levels[level].form == "bullet":
            return "- "
        for position in range(level + 1):
            if position in levels:
                value = counters[position]
                number = levels[position].start if value is None else value
                text = text.replace(f"%{position + 1}", _numeral(number, levels[position].form))
        return f"{text} " if text else ""

    def _place(self, paragraph: _Element) -> tuple[str | None, int]:
        """Return the list and the level of a paragraph: its own properties, else those of its style."""
        list_id: str | None = None
        level: int | None = None
        for properties in self._properties(paragraph):
            found = properties.find(qn("w:numPr")) if properties is not None else None
            if found is None:
                continue
            list_id = list_id or _value(found.find(qn("w:numId")))
            level = _integer(found.find(qn("w:ilvl"))) if level is None else level
        return list_id, min(max(level or 0, 0), _LEVELS - 1)

    def _properties(self, paragraph: _Element) -> list[_Element]:
        own = paragraph.find(qn("w:pPr"))
        return [own, *(style.find(qn("w:pPr")) for style in self._style_chain(own))]

    def _style_chain(self, own: _Element) -> list[_Element]:
        """Return the paragraph's style and those it is based on, nearest first."""
        chain: list[_Element] = []
        name = _value(own.find(qn("w:pStyle"))) if own is not None else None
        while name in self._styles and self._styles[name] not in chain:  # damaged files have circles
            chain.append(self._styles[name])
            name = _value(chain[-1].find(qn("w:basedOn")))
        return chain

    def _heading_mark(self, paragraph: _Element) -> str:
        for style in self._style_chain(paragraph.find(qn("w:pPr"))):
            name = (_value(style.find(qn("w:name"))) or "").lower()
            if name.startswith("heading ") and name[8:].isdigit():
                return "#" * min(int(name[8:]), 6) + " "
        return ""


def _read_lists(document: Any) -> dict[str | None, tuple[str, dict[int, _Level]]]:
    """Return, by list id, the id of its abstract definition and its levels."""
    try:
        root = document.part.numbering_part.element
    except (KeyError, NotImplementedError):
        return {}  # a document without lists has no such part
    abstract = {
        definition.get(qn("w:abstractNumId")): _read_levels(definition)
        for definition in root.findall(qn("w:abstractNum"))
    }
    return {
        number.get(qn("w:numId")): (reference, abstract[reference])
        for number in root.findall(qn("w:num"))
        if (reference := _value(number.find(qn("w:abstractNumId")))) in abstract and reference is not None
    }


def _read_levels(definition: _Element) -> dict[int, _Level]:
    levels: dict[int, _Level] = {}
    for level in definition.findall(qn("w:lvl")):
        index = level.get(qn("w:ilvl"), "")
        if index.isdigit() and int(index) < _LEVELS:
            levels[int(index)] = _Level(
                form=_value(level.find(qn("w:numFmt"))) or "decimal",
                pattern=_value(level.find(qn("w:lvlText"))) or "",
                start=_integer(level.find(qn("w:start")), default=1),
            )
    return levels


def _value(element: _Element) -> str | None:
    return None if element is None else element.get(qn("w:val"))


def _integer(element: _Element, default: int = 0) -> int:
    text = _value(element) or ""
    return int(text) if text.isdecimal() and len(text) < 7 else default


def _numeral(number: int, form: str) -> str:
    match form:
        case "lowerLetter":
            return _letters(number)
        case "upperLetter":
            return _letters(number).upper()
        case "lowerRoman":
            return _roman(number)
        case "upperRoman":
            return _roman(number).upper()
        case "decimalZero":
            return f"{number:02}"
        case "none":
            return ""
        case _:
            return str(number)


def _letters(number: int) -> str:
    """Return a, b, … z, aa, bb, … as Word writes them."""
    if not 1 <= number <= 780:
        return str(number)
    return chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)


def _roman(number: int) -> str:
    if not 1 <= number < 4000:
        return str(number)
    text = ""
    for value, digits in _ROMAN:
        text += digits * (number // value)
        number %= value
    return text
