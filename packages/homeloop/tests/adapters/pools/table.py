"""
Write the table of pools and features: ``table.py table.md report.xml ...``.

Of a cell that is in several reports the last one counts.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import celery

POOLS = ("prefork", "threads", "solo", "gevent", "eventlet", "asyncio")  # the last one is ours
BROKERS = {"redis": "Redis", "rabbitmq": "RabbitMQ", "filesystem": "filesystem"}
HEAD = """# Celery's pools: what async tasks can do on each

Written by `make celery-pools` from its test results on {date}, not by hand. Each cell is a test with real
workers, run with Redis, with RabbitMQ and with workflow_service's filesystem broker (results in Redis); one that
failed was tried once more. Celery {version}, kombu {kombu}, gevent {gevent}, eventlet {eventlet}, Python {python}.
"Clean-up runs" means: the coroutine is cancelled at its await, its `finally` blocks are awaited.

"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One test: what it was about, how it ended."""

    feature: str
    pool: str
    broker: str
    outcome: str  # "yes", "FAILED", "not run: ..." or the reason why Celery cannot


def read(report: Path) -> list[Cell]:
    """Return the cells of a JUnit report, in its order."""
    cells = []
    for case in ET.parse(report).iter("testcase"):
        said = {each.get("name"): each.get("value", "") for each in case.iter("property")}
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "FAILED"
        elif skipped is not None:
            outcome = f"not run: {skipped.get('message')}"
        else:
            outcome = said.get("cannot", "yes")
        cells.append(Cell(said["feature"], said["pool"], said["broker"], outcome))
    return cells


class Notes:
    """Reasons, numbered as they come up."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, reason: str) -> int:
        return self._numbers.setdefault(reason, len(self._numbers) + 1)

    def __str__(self) -> str:
        return "\n".join(f"{number}. {reason[0].upper()}{reason[1:]}." for reason, number in self._numbers.items())


def describe(by_broker: dict[str, str], notes: Notes) -> str:
    """Return what a cell of the table says: one word for all brokers if it can."""
    if not by_broker:
        return ""
    if len(set(by_broker.values())) == 1:
        [outcome] = set(by_broker.values())
        return outcome if outcome in ("yes", "FAILED") else f"no ({notes.number(outcome)})"
    but = [
        f"{BROKERS[broker]}: {outcome}"
        if outcome == "FAILED"
        else f"{BROKERS[broker]}: no ({notes.number(outcome)})"
        for broker, outcome in by_broker.items()
        if outcome != "yes"
    ]
    return f"yes; {', '.join(but)}"


def write(cells: list[Cell]) -> str:
    """Return the page."""
    table: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        table[cell.feature][cell.pool][cell.broker] = cell.outcome
    notes = Notes()
    lines = [f"| | {' | '.join(POOLS)} |", "|---" * (len(POOLS) + 1) + "|"]
    for feature, by_pool in table.items():
        lines.append(f"| {feature} | {' | '.join(describe(by_pool[pool], notes) for pool in POOLS)} |")
    python = ".".join(map(str, sys.version_info[:3]))
    others = {name: version(name) for name in ("kombu", "gevent", "eventlet")}
    head = HEAD.format(date=date.today().isoformat(), version=celery.__version__, python=python, **others)
    page = head + "\n".join(lines) + "\n"
    return f"{page}\nWhy not:\n\n{notes}\n" if str(notes) else page


if __name__ == "__main__":
    _, page, *reports = sys.argv
    Path(page).write_text(write([cell for report in reports for cell in read(Path(report))]))
