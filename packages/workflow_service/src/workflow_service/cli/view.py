"""What the command line shows: addresses, progress, findings, errors."""

import math
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from workflow_service.cli.doctor import Check, State
from workflow_service.cli.settings_view import Setting
from workflow_service.domain.contract import Finding, Severity
from workflow_service.domain.run import JsonObject
from workflow_service.local.abandoned import AbandonedDatabase
from workflow_service.local.errors import LocalError, log_tail
from workflow_service.local.service import Connection
from workflow_service.local.worker_keeper import WorkerDeath

_PLAIN_WIDTH = 140  # columns where no terminal says how many it has
_SEVERITY_STYLES: dict[str, str] = {Severity.HIGH: "bold red", Severity.MEDIUM: "yellow", Severity.LOW: "green"}
_STATES = {State.OK: ("ok", "green"), State.WARNING: ("warn", "bold yellow"), State.FAILED: ("FAIL", "bold red")}


class ShowProgress(Protocol):
    """Shows one event of a run."""

    def __call__(self, percent: int, description: str) -> None: ...


class View:
    """Writes results to standard output, and what goes wrong to standard error."""

    def __init__(self) -> None:
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    def say(self, line: str) -> None:
        """Show one line as it is, never wrapped: it may be an address to click on or to copy."""
        self.out.print(Text(line), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Show one line that needs attention."""
        self.err.print(Text(line, style="bold yellow"), soft_wrap=True)

    def abandoned(self, databases: Sequence[AbandonedDatabase]) -> None:
        """Say in one line how many databases without a home were removed, and how many will be."""
        removed = [each for each in databases if not each.kept_for]
        kept = [each for each in databases if each.kept_for]
        told = []
        if removed:
            told.append(f"removed {_databases(removed)}")
        if kept:
            hours = math.ceil(max(each.kept_for for each in kept) / 3600)
            told.append(f"kept {_databases(kept)} for up to {hours} h more, should a home come back")
        if told:
            self.say(f"Of homes that are gone: {'; '.join(told)}")

    def serving(self, connection: Connection) -> None:
        """Show where the service is and how to get in."""
        self.say("")
        self.say(f"  Page    {connection.address}#key={connection.key}")
        self.say(f"  API     {connection.address}api/v1")
        self.say(f"  Key     {connection.key}")
        self.say("")
        self.say("Ctrl-C stops the service.")

    def error(self, error: LocalError) -> None:
        """Show what went wrong, and the end of the log that tells more."""
        self.err.print(Text(f"error: {error}", style="bold red"), soft_wrap=True)
        if error.log is not None:
            self._end_of(error.log)

    def worker_died(self, death: WorkerDeath, home: str) -> None:
        """Say loudly that no worker is left, and when it comes back or how to start one again."""
        if death.again_in is None:
            self.warn(
                f"{death.what}: runs wait until a worker is back. Start one, with the settings of this service:"
            )
            folder = os.environ.get("WORKFLOW_DEFINITIONS")  # without it, the runs that wait for it would fail
            definitions = f"WORKFLOW_DEFINITIONS={shlex.quote(str(Path(folder).absolute()))} " if folder else ""
            self.warn(f"    {definitions}workflow-service worker --home {shlex.quote(home)}")
        else:
            self.warn(f"{death.what}: runs wait; it is started again in {death.again_in:g} s.")
        self._end_of(death.log)

    def _end_of(self, log: Path) -> None:
        tail = log_tail(log)
        self.err.print(Text(f"--- the end of {log}" if tail else f"--- nothing is in {log}"), soft_wrap=True)
        if tail:
            self.err.print(Text(tail), soft_wrap=True)

    def checks(self, checks: Sequence[Check]) -> None:
        """Show a line for each check, and below those that failed what to do."""
        width = max(len(check.subject) for check in checks)
        for check in checks:
            word, style = _STATES[check.state]
            line = Text(f"{word:<5}", style=style).append(f" {check.subject:<{width}}  {check.found}", style="")
            self.out.print(line, soft_wrap=True)
            for advice in check.advice.splitlines():
                self.out.print(Text(f"      {'':<{width}}  → {advice}"), soft_wrap=True)

    def settings(self, settings: Sequence[Setting]) -> None:
        """Show every setting."""
        for each in settings:
            line = Text(f"{each.variable} = {each.value}", style="" if each.is_default else "bold")
            told = "default" if each.is_default else f"{each.source}; default: {each.default}"
            self.out.print(line.append(f"  ({told})", style="not bold dim"), soft_wrap=True)
            self.out.print(Text(f"    {each.meaning}", style="dim"), soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[ShowProgress]:
        """Show a bar on a terminal, else a line for each event."""
        if not self.out.is_terminal:
            yield lambda percent, description: self.say(f"{percent:3d} %  {_one_line(description)}")
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.out) as progress:
            task = progress.add_task(title, total=100)

            def show(percent: int, description: str) -> None:
                progress.update(task, completed=percent, description=_one_line(description))

            yield show

    def findings(self, result: JsonObject) -> None:
        """Show the findings of a contract analysis, each with its place in the text."""
        findings = _findings(result)
        title = f"{len(findings)} findings in {_one_line(result['document']['filename'])}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("Kind", "Finding", "Severity", "Clause", "Page", "Place"):
            table.add_column(column, overflow="fold", max_width=22)
        table.add_column("Quote", overflow="fold", min_width=24)
        for finding in findings:
            severity = finding.severity or ""
            table.add_row(
                _cell(finding.kind.replace("_", " ")),
                _cell(finding.label),
                Text(severity, style=_SEVERITY_STYLES.get(severity, "")),
                _cell(finding.clause),
                _cell(str(finding.page)),
                _cell(f"characters {finding.span.start}–{finding.span.end}"),
                _cell(finding.quote),
            )
        self.out.print(table)

    def summary(self, result: JsonObject) -> None:
        """Show a few lines about a contract analysis."""
        findings = _findings(result)
        grave = [finding for finding in findings if finding.severity is Severity.HIGH]
        filename = _one_line(result["document"]["filename"])
        self.say(f"Analysed {filename}: {len(findings)} findings, {len(grave)} of high severity.")
        for finding in grave:
            self.say(f"  {_one_line(finding.label)} (clause {finding.clause}, page {finding.page})")


def _databases(databases: Sequence[AbandonedDatabase]) -> str:
    """Name one database by its home, count several; either way with what they take and where they lie."""
    size = f"{sum(each.size for each in databases) / 1e6:.0f} MB"
    if len(databases) == 1:
        [only] = databases
        return f"the database of {only.home} ({only.place}, {size})"
    return f"{len(databases)} databases ({databases[0].place.parent}, {size})"


def _findings(result: JsonObject) -> list[Finding]:
    return [Finding.from_json(finding) for finding in result["findings"]]


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def _cell(text: str) -> Text:
    return Text(_one_line(text))


def _one_line(text: str) -> str:
    """Return text from a document so that it cannot steer the terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
