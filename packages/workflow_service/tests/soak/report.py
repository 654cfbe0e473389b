"""What a soak showed: a table, and a drawing."""

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from samples import Sample

FIGURES: dict[str, tuple[str, str, Callable[[Sample], float]]] = {
    "memory": ("Resident memory", "MB", lambda sample: sample.memory),
    "descriptors": ("Open descriptors", "", lambda sample: sample.descriptors),
    "sockets": ("Sockets", "", lambda sample: sample.sockets),
    "connections": ("Connections to PostgreSQL, all processes", "", lambda sample: sample.connections),
}
_COLOURS = {"API": "#2563eb", "worker": "#c2410c", "PostgreSQL": "#15803d"}
_GROWN = {"memory": 30.0, "descriptors": 15.0, "sockets": 15.0, "connections": 10.0}
"""More than this is no longer flat. Guesses: a leak of one per run is more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One installation's soak."""

    name: str
    seconds: float
    ended: Counter[str]
    wrong: list[str]
    disturbances: Counter[str]
    samples: list[Sample]
    loop_errors: list[str]
    tracebacks: list[str]

    @property
    def is_well(self) -> bool:
        """Whether all runs ended as they should, the logs are clean, and what is held stayed flat."""
        return not (self.wrong or self.loop_errors or self.tracebacks) and all(
            grown <= _GROWN[figure] for figure, _, _, _, grown in changes(self)
        )


def changes(outcome: Outcome) -> Iterator[tuple[str, str, float, float, float]]:
    """Yield figure, line, median of the first fifth after warming up, of the last, and the growth."""
    for figure, (_, _, of) in FIGURES.items():
        for line in _COLOURS:
            samples = [sample for sample in outcome.samples if sample.line == line]
            if (figure == "connections") != (line == "PostgreSQL") or not samples:
                continue
            end = max(sample.at for sample in samples)
            first = [of(sample) for sample in samples if 0.1 * end < sample.at <= 0.3 * end]
            last = [of(sample) for sample in samples if sample.at > 0.8 * end]
            if first and last:
                yield figure, line, median(first), median(last), median(last) - median(first)


def report(outcomes: Sequence[Outcome], when: datetime, folder: Path | None) -> str:
    """Return the page; with a folder, write it there as soak.md, with its drawing soak.svg."""
    text = "\n".join(_page(outcomes, when))
    if folder is not None:
        (folder / "soak.md").write_text(text)
        (folder / "soak.svg").write_text("\n".join(_drawing(outcomes)))
    return text


def _page(outcomes: Sequence[Outcome], when: datetime) -> Iterator[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("celery", "fastapi", "langgraph", "asyncpg"))
    yield "# Soak"
    yield ""
    python = f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores"
    yield f"Written by `make soak` on {when:%d %B %Y}: {python}."
    yield "What it does is said at the top of `packages/workflow_service/tests/soak/__main__.py`."
    yield ""
    yield "![Memory, descriptors, sockets and connections over the time](soak.svg)"
    yield ""
    yield "| | " + " | ".join(outcome.name for outcome in outcomes) + " |"
    yield "|---" * (len(outcomes) + 1) + "|"
    rows: dict[str, Callable[[Outcome], object]] = {
        "seconds": lambda outcome: f"{outcome.seconds:.0f}",
        "runs": lambda outcome: outcome.ended.total(),
        "of which": lambda outcome: "<br>".join(
            f"{number} {what}" for what, number in sorted(outcome.ended.items())
        ),
        "disturbances": lambda outcome: "<br>".join(
            f"{n} times {what}" for what, n in sorted(outcome.disturbances.items())
        ),
        "runs that ended wrong": lambda outcome: len(outcome.wrong),
        "loop errors in logs": lambda outcome: len(outcome.loop_errors),
        "tracebacks in logs": lambda outcome: len(outcome.tracebacks),
    }
    for name, of in rows.items():
        yield f"| {name} | " + " | ".join(str(of(outcome)) for outcome in outcomes) + " |"
    yield ""
    yield "Medians of the time from 10 to 30 %, and of the last fifth:"
    yield ""
    yield "| | of | first | last | grown by |"
    yield "|---|---|---|---|---|"
    for outcome in outcomes:
        for figure, line, first, last, grown in changes(outcome):
            title, unit, _ = FIGURES[figure]
            cells = (
                title,
                f"{outcome.name}, {line}",
                f"{first:.0f} {unit}",
                f"{last:.0f} {unit}",
                f"{grown:+.1f} {unit}",
            )
            yield f"| {' | '.join(cell.strip() for cell in cells)} |"
    yield ""


_WIDTH, _HEIGHT, _GAP = 420, 150, 60


def _drawing(outcomes: Sequence[Outcome]) -> Iterator[str]:
    width = len(outcomes) * (_WIDTH + _GAP) + _GAP
    height = len(FIGURES) * (_HEIGHT + _GAP) + _GAP
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    yield ' font-family="sans-serif" font-size="12"><title>What processes hold during a soak</title>'
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    for column, outcome in enumerate(outcomes):
        for row, figure in enumerate(FIGURES):
            left, top = _GAP + column * (_WIDTH + _GAP), _GAP + row * (_HEIGHT + _GAP)
            yield f'<g transform="translate({left},{top})">'
            yield from _panel(outcome, figure)
            yield "</g>"
    yield "</svg>"


def _panel(outcome: Outcome, figure: str) -> Iterator[str]:
    title, unit, of = FIGURES[figure]
    lines = {
        line: [sample for sample in outcome.samples if sample.line == line]
        for line in _COLOURS
        if (figure == "connections") == (line == "PostgreSQL")
    }
    values = [of(sample) for samples in lines.values() for sample in samples]
    highest = max(values, default=1.0) * 1.1 or 1.0
    end = max((sample.at for samples in lines.values() for sample in samples), default=1.0)
    yield f'<text y="-10" font-weight="bold">{outcome.name}: {title}{f" ({unit})" if unit else ""}</text>'
    for share in (0.0, 0.5, 1.0):
        y = _HEIGHT * (1 - share)
        yield f'<path d="M0 {y:.0f}H{_WIDTH}" stroke="#d4d4d8"/>'
        yield f'<text x="-6" y="{y + 4:.0f}" text-anchor="end">{highest * share:.0f}</text>'
        yield f'<text x="{_WIDTH * share:.0f}" y="{_HEIGHT + 16}" text-anchor="middle">{end * share:.0f} s</text>'
    for number, (line, samples) in enumerate(lines.items()):
        if len(lines) > 1:  # else the title names it
            y = -10 + 14 * number
            yield f'<text x="{_WIDTH}" y="{y}" text-anchor="end" fill="{_COLOURS[line]}">{line}</text>'
        for pid in dict.fromkeys(sample.pid for sample in samples):
            points = " ".join(
                f"{_WIDTH * sample.at / end:.1f},{_HEIGHT * (1 - of(sample) / highest):.1f}"
                for sample in samples
                if sample.pid == pid
            )
            yield f'<polyline points="{points}" fill="none" stroke="{_COLOURS[line]}" stroke-width="1.5"/>'
