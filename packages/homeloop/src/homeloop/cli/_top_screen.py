"""What ``homeloop top`` shows: the loops of a process, one of them, or the stacks; and what keys do there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from homeloop import LocalProcess
from homeloop.cli._ps import process_lines, stacks_text

Figures = dict[str, Any]  # Any: what JSON knows
Page = Literal["loops", "loop", "stacks"]

_STYLES = {"healthy": "green", "warning": "yellow", "critical": "bold red"}
_HELP = {
    "loops": "sort by (l)ag (b)usy (t)asks (n)ame, \u2191 \u2193 choose, (enter) look into it, (s)tacks, (q)uit",
    "loop": "\u2191 \u2193 scroll, (esc) back, (q)uit",
    "stacks": "\u2191 \u2193 scroll, (esc) back, (q)uit",
}


def _lag(loop: Figures) -> float:
    lag: float = -1.0 if loop["lag"] is None else loop["lag"]["p99"]
    return lag


_ORDERS: dict[str, tuple[str, Callable[[Figures], Any]]] = {  # Any: what can be compared
    "l": ("lag", lambda loop: -_lag(loop)),
    "b": ("busy", lambda loop: -(loop["utilisation"] or 0.0)),
    "t": ("tasks", lambda loop: -loop["pending"]),
    "n": ("name", lambda loop: loop["name"]),
}


@dataclass(slots=True)
class Screen:
    """
    What is looked at.

    Attributes:
        page: The table of loops, one loop, or the stacks of all threads and tasks.
        order: The key of the column that loops are sorted by.
        chosen: The number of the loop that is looked into; None: the first of the table.
        first: The line that a page of text begins with.
        ended: Whether the user wants no more.
    """

    page: Page = "loops"
    order: str = "l"
    chosen: int | None = None
    first: int = 0
    ended: bool = False
    _shown: list[int] = field(default_factory=list[int])  # the loops of the table, by number

    @property
    def wants_stacks(self) -> bool:
        """Whether the page needs what threads and tasks do."""
        return self.page != "loops"

    def press(self, key: str) -> None:
        """Do what a key means here; others do nothing."""
        if key in ("q", "\x03", "\x04"):
            self.ended = True
        elif self.page != "loops":
            if key in ("up", "down"):
                self.first = max(self.first + (1 if key == "down" else -1), 0)
            elif key == "esc":
                self.page, self.first = "loops", 0
        elif key in _ORDERS:
            self.order = key
        elif key in ("up", "down") and self._shown:
            at = self._shown.index(self._at()) + (1 if key == "down" else -1)
            self.chosen = self._shown[max(0, min(at, len(self._shown) - 1))]
        elif key == "enter" and self._shown:
            self.chosen, self.page = self._at(), "loop"
        elif key == "s":
            self.page = "stacks"

    def render(self, process: LocalProcess, stacks: Figures | None, height: int | None) -> RenderableType:
        """
        Return what is to be shown.

        Args:
            process: What the process answered.
            stacks: What its threads and tasks do; None if that was not asked, or not answered.
            height: Lines that there are; None: as many as it takes.
        """
        help_line = [] if height is None else [Text(_HELP[self.page], "dim")]  # nobody there has keys
        if process.state != "answered":
            return Group(Text("\n".join(process_lines(process)), "bold red"), *help_line)
        head = Text(f"{process.pid}  {process.report['status']}  {process.report['command']}")
        head.stylize(_STYLES[process.report["status"]])
        body = self._loops(process.report) if self.page == "loops" else self._text(process.report, stacks, height)
        return Group(head, body, *help_line)

    def _at(self) -> int:
        """Return the loop that is chosen, or the first if that is gone."""
        return self.chosen if self.chosen in self._shown else self._shown[0]

    def _loops(self, report: Figures) -> RenderableType:
        title, order = _ORDERS[self.order]
        loops = sorted(report["loops"], key=order)
        self._shown = [loop["home"]["loop"] for loop in loops]
        table = Table(box=None, pad_edge=False)
        for column in ("loop", "name", "owner", "state", "lag p99", "busy", "tasks"):
            table.add_column(column + (" \u25be" if title in column.split() else ""), no_wrap=True)
        for loop in loops:
            number = loop["home"]["loop"]
            style = "bold red" if loop["state"] == "blocked" else ""
            table.add_row(*_cells(loop), style=style + (" reverse" if number == self._at() else ""))
        # The loops are in the table, and the first line is the head.
        others = [line for line in _lines_of(report) if not line.startswith("  loop  ")]
        return Group(table, *map(Text, others))

    def _text(self, report: Figures, stacks: Figures | None, height: int | None) -> RenderableType:
        if stacks is None:
            return Text("no answer yet")
        lines = stacks_text(stacks).splitlines() if self.page == "stacks" else list(self._one_loop(report, stacks))
        self.first = min(self.first, max(len(lines) - 1, 0))
        end = None if height is None else self.first + max(height - 3, 1)
        return Text("\n".join(lines[self.first : end]), no_wrap=True, overflow="ellipsis")

    def _one_loop(self, report: Figures, stacks: Figures) -> Iterator[str]:
        found = [loop for loop in report["loops"] if loop["home"]["loop"] == self.chosen]
        if not found:
            yield "this loop is gone"
            return
        (loop,) = found
        yield from (line for line in _lines_of({**report, "loops": found}) if line.startswith("  loop  "))
        yield from (f"  {number} of {name}()" for name, number in loop["most"])
        for thread in stacks["threads"]:
            if thread["name"] == loop["home"]["thread"]:
                yield from (f"thread {thread['name']}", *(f"  {frame}" for frame in thread["stack"]))
        tasks = [task for task in stacks["tasks"] if task["loop"] == self.chosen]
        yield from stacks_text({"threads": [], "tasks": tasks, "pending_tasks": len(tasks)}).splitlines()


def _lines_of(report: Figures) -> list[str]:
    return list(process_lines(LocalProcess(report["pid"], "answered", report)))[1:]


def _cells(loop: Figures) -> tuple[str, ...]:
    return (
        str(loop["home"]["loop"]),
        loop["name"],
        loop["owner"],
        loop["state"],
        "" if loop["lag"] is None else f"{1000 * loop['lag']['p99']:.1f} ms",
        "" if loop["utilisation"] is None else f"{loop['utilisation']:.0%}",
        str(loop["pending"]),
    )
