"""A diagnosis on one screen: used here, made here, which loops, why the message misleads, what to change."""

import os
import textwrap
from collections.abc import Iterator
from typing import Protocol

from homeloop._provenance import Place
from homeloop.diagnosis._codes import Code

WIDTH = 96
_MAX_CALLERS = 4
_SOURCE_WIDTH = 90

_RED, _BLUE, _GREEN, _YELLOW, _BOLD, _END = "\033[1;31m", "\033[34m", "\033[32m", "\033[33m", "\033[1m", "\033[0m"


class Loop(Protocol):
    """What is told of a loop."""

    @property
    def kind(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def thread(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def made_at(self) -> Place | None: ...
    @property
    def run_at(self) -> Place | None: ...
    @property
    def closed_at(self) -> Place | None: ...


class Finding(Protocol):
    """What is told."""

    @property
    def explanation(self) -> Code: ...
    @property
    def confidence(self) -> str: ...
    @property
    def evidence(self) -> str: ...
    @property
    def thing(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def hidden(self) -> bool: ...
    @property
    def used_at(self) -> Place | None: ...
    @property
    def made_at(self) -> Place | None: ...
    @property
    def owner(self) -> Loop | None: ...
    @property
    def current(self) -> Loop | None: ...


def render(finding: Finding, *, color: bool = False) -> str:
    """Return a finding as text of at most one screen, with a final line break."""
    paint = _Paint(color)
    code = finding.explanation
    lines = [f"{paint(_RED, f'error[{code.code}]')}{paint(_BOLD, f': {code.title}')}"]
    width = max((len(str(place.line)) for place in (finding.used_at, finding.made_at) if place), default=1)
    margin = " " * width
    edge = f"{margin} {paint(_BLUE, '|')}"
    if finding.used_at is not None:
        label = f"{finding.thing} is used here" if finding.thing else "here"
        lines += _snippet(finding.used_at, label, "^", _RED, width, paint)
    if finding.made_at is not None:
        lines += _snippet(finding.made_at, "and was made here", "-", _BLUE, width, paint)
        lines += [f"{edge} called from {each}" for each in finding.made_at.callers[:_MAX_CALLERS]]
    if finding.used_at is not None or finding.made_at is not None:
        lines.append(edge)
    if finding.thing and finding.used_at is None:
        lines += _entries(margin, _BLUE, "what", [finding.thing], paint)
    lines += _entries(margin, _BLUE, "loop", _loops(finding), paint)
    if finding.error:
        words = f"{finding.error}: {finding.message}" if finding.message else finding.error
        intro = "raised first, then hidden by another error: " if finding.hidden else ""
        lines += _entries(margin, _BLUE, "it says", [f"{intro}{words}"], paint)
        lines += _entries(margin, _YELLOW, "but", [code.misleads], paint)
    lines += _entries(margin, _BLUE, "because", [f"{finding.evidence} ({finding.confidence} confidence)"], paint)
    lines += _entries(margin, _GREEN, "help", list(code.remedy), paint)
    lines += _entries(margin, _BLUE, "more", [f"python -m homeloop explain {code.code}"], paint)
    return "\n".join(lines) + "\n"


class _Paint:
    def __init__(self, on: bool) -> None:
        self._on = on

    def __call__(self, style: str, text: str) -> str:
        return f"{style}{text}{_END}" if self._on else text


def _snippet(place: Place, label: str, mark: str, style: str, width: int, paint: _Paint) -> list[str]:
    """Show a source line, its span underlined and labelled."""
    margin, bar = " " * width, paint(_BLUE, "|")
    file = place.file.replace(os.sep, "/")
    lines = [f"{margin}{paint(_BLUE, '-->')} {file}:{place.line} in {place.function}", f"{margin} {bar}"]
    source = place.source.expandtabs(1).rstrip()
    if not source.strip():
        return [*lines, f"{margin} {bar} {paint(style, label)}"]
    indent = len(source) - len(source.lstrip())
    start = indent if place.column is None else max(indent, place.column)
    end = len(source) if place.end_column is None else min(place.end_column, len(source))
    shown = source[indent : indent + _SOURCE_WIDTH]
    start, end = min(start - indent, len(shown) - 1), min(end - indent, len(shown))
    marks = f"{' ' * start}{mark * max(1, end - start)}"
    lines.append(f"{paint(_BLUE, f'{place.line:>{width}}')} {bar} {shown}")
    if len(marks) + 1 + len(label) <= WIDTH:
        lines.append(f"{margin} {bar} {paint(style, f'{marks} {label}')}")
    else:
        lines += [f"{margin} {bar} {paint(style, marks)}", f"{margin} {bar} {paint(style, label)}"]
    return lines


def _loops(finding: Finding) -> list[str]:
    if finding.owner is None and finding.current is None:
        return []
    told: list[str] = []
    if finding.owner is not None:
        told.append(f"it belongs to {_describe(finding.owner)}")
    if finding.current is not None:
        told.append(f"it was used on {_describe(finding.current)}")
    if finding.owner is not None and finding.made_at is None and finding.owner.made_at is None:
        told.append("HOMELOOP_TRACE=1 records where loops and clients are made")
    return told


def _describe(loop: Loop) -> str:
    parts = [f"a {loop.kind.rpartition('.')[2]}"]
    if loop.made_at is not None:
        parts.append(f"made at {_where(loop.made_at)}")
    if loop.run_at is not None:
        parts.append(f"started at {_where(loop.run_at)}")
    if loop.thread:
        parts.append(f"thread {loop.thread!r}")
    if loop.pid is not None and loop.pid != os.getpid():
        parts.append(f"process {loop.pid}, not this one")
    if loop.closed_at is not None:
        parts.append(f"closed at {_where(loop.closed_at)}")
    else:
        parts.append({"closed": "closed by now", "running": "running", "idle": "not running"}.get(loop.state, ""))
    return ", ".join(filter(None, parts))


def _where(place: Place) -> str:
    return f"{place.file.replace(os.sep, '/')}:{place.line}"


def _entries(margin: str, style: str, title: str, told: list[str], paint: _Paint) -> Iterator[str]:
    indent = f"{margin}   {' ' * (len(title) + 2)}"
    for text in told:
        first, *rest = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False) or [""]
        yield f"{margin} {paint(_BLUE, '=')} {paint(style, title)}: {first}"
        yield from (f"{indent}{line}" for line in rest)
