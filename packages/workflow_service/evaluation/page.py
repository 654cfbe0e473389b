"""The page docs/reference/eval.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from scoring import Score

Scores = Mapping[str, Score]

_HEAD = """\
# How good the contract analysis is

Written by `make eval` on {day}. A label is what a reader found; a finding is right if its kind, its place and its
value are the label's. Precision is the share of the findings that are right, recall the share of the labels that
are found. «-» is a share of nothing, or of what nobody judged.

```console
$ make eval                              # the samples, and contracts that packages on PyPI carry
$ make eval DATA=CUADv1.json             # the Contract Understanding Atticus Dataset as well
$ WORKFLOW_MODEL=openai:… make eval      # and what the language model adds
```

CUAD is 510 contracts of companies, labelled by lawyers, under CC BY 4.0. Fetch it from
<https://www.atticusprojectai.org/cuad>; nothing of it ships here.
"""

_FIRST_SIGHT = """\
## At first sight

What the rules found in the last four contracts when they first saw them (30 November 2026), before anything was
mended for what they missed. Their table below is no measure any more: what was missed in them has been mended.

| | labels | precision | recall |
|---|---:|---:|---:|
| party | 4 | 1.00 | 0.25 |
| date | 3 | 1.00 | 1.00 |
| notice period | 2 | 1.00 | 0.50 |
| governing law | 3 | 0.50 | 0.33 |
| venue | 1 | - | 0.00 |
| money | 3 | 1.00 | 1.00 |
| obligation, three contracts, «you» not yet a party | 37 | 0.00 | 0.00 |
| obligation, the fourth contract, «you» a party | 6 | 0.75 | 1.00 |
| risk | 19 | 0.79 | 0.58 |
"""


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
    """Return the page; ``model`` is the language model's name."""
    asked = f"\nThe language model was `{model}`.\n" if model else "\nNo language model was asked.\n"
    return "\n".join([_HEAD.format(day=day.isoformat()), asked, _FIRST_SIGHT, *map(_section, parts)])


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
