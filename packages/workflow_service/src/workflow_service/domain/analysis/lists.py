"""Tells the items of lettered and numbered lists from words in brackets, by what came before them."""

import re
from collections.abc import Sequence
from enum import Enum, auto

_ROMAN = re.compile(r"m{0,3}(?:cm|cd|d?c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}


class _Style(Enum):
    LETTERS = auto()
    CAPITALS = auto()
    ROMAN = auto()
    DIGITS = auto()


class OpenLists:
    """The lists that are open at a place in a text, outermost first."""

    def __init__(self) -> None:
        self._lists: list[tuple[_Style, int, str]] = []  # style, ordinal and label of the last item

    def close(self) -> None:
        """Forget them all: a new clause has begun."""
        self._lists.clear()

    def place(self, label: str) -> Sequence[str] | None:
        """Return the labels from the outermost list down to this item; None if it is no item.

        An item goes on with an open list, the innermost first, or begins one: (a), (A), (i) and (1) only. A list
        that begins in one of its own style takes its place.
        """
        readings = _readings(label)
        for depth in reversed(range(len(self._lists))):
            style, ordinal, _ = self._lists[depth]
            if readings.get(style) == ordinal + 1:
                del self._lists[depth:]
                return self._push(style, ordinal + 1, label)
        for style, ordinal in readings.items():
            if ordinal == 1:
                styles = [item[0] for item in self._lists]
                del self._lists[styles.index(style) if style in styles else len(styles) :]
                return self._push(style, 1, label)
        return None

    def _push(self, style: _Style, ordinal: int, label: str) -> Sequence[str]:
        self._lists.append((style, ordinal, label))
        return [item[2] for item in self._lists]


def _readings(label: str) -> dict[_Style, int]:
    """Return the ordinals a label may stand for: (i) is the first roman item or the ninth letter."""
    if label.isdecimal():
        return {_Style.DIGITS: int(label)}
    found: dict[_Style, int] = {}
    if len(set(label)) == 1:  # z is followed by aa
        style = _Style.LETTERS if label.islower() else _Style.CAPITALS
        found[style] = ord(label[0].lower()) - ord("a") + 1 + 26 * (len(label) - 1)
    if label.islower() and _ROMAN.fullmatch(label):
        found[_Style.ROMAN] = _roman_value(label)
    return found


def _roman_value(label: str) -> int:
    values = [_ROMAN_VALUES[letter] for letter in label]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))
