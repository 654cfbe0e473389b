"""The tables of docs/reference/eval.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from scoring import Score

Scores = Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class Part:
    """The contracts of one source and their scores: by rules and, with a model, by both."""

    title: str
    about: str
    contracts: int
    chars: int
    by_rules: Scores
    with_model: Scores | None


def page(parts: Sequence[Part], day: date, model: str | None) -> str:
    """Return what was measured; ``model`` is the language model's name."""
    asked = f"\nThe language model was `{model}`.\n" if model else "\nNo language model was asked.\n"
    measured = f"Measured on {day.isoformat()}.\n"
    return "\n".join([measured, asked, *map(_section, parts)])


def _section(part: Part) -> str:
    counted = f"{part.contracts} contract{'s' * (part.contracts != 1)}, {part.chars:,} characters."
    head = "| | labels | precision | recall | F1 |"
    rule = "|---|---:|---:|---:|---:|"
    if part.with_model is not None:
        head += " precision with model | recall | F1 |"
        rule += "---:|---:|---:|"
    rows = sorted({*part.by_rules, *(part.with_model or {})})
    table = "\n".join([head, rule, *(_row(row, part) for row in rows)])
    return f"## {part.title}\n\n{part.about} {counted}\n\n{table}\n"


def _row(row: str, part: Part) -> str:
    scores = [part.by_rules.get(row, Score())]
    if part.with_model is not None:
        scores.append(part.with_model.get(row, Score()))
    labels = scores[0].found + scores[0].missed
    cells = (_share(share) for each in scores for share in (each.precision, each.recall, each.f1))
    return f"| {row.replace('_', ' ')} | {labels} | {' | '.join(cells)} |"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"
