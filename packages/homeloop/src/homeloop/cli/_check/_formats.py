"""How findings are told: for people, for programs, for GitHub's annotations, for SARIF viewers."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from homeloop.cli._check._catalogue import BY_CODE, RULES
from homeloop.cli._check._examine import Result
from homeloop.cli._check._findings import Finding, Spot

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def text(result: Result) -> str:
    """Return findings for people: the place, why, what to change."""
    parts = [_told(each) for each in result.findings]
    count = len(result.findings)
    files = f"{result.checked} file{'' if result.checked == 1 else 's'} checked"
    parts.append(f"{count} finding{'' if count == 1 else 's'}, {files}" if count else f"nothing found, {files}")
    return "\n".join(parts) + "\n"


def _told(finding: Finding) -> str:
    rule, spot = BY_CODE[finding.code], finding.spot
    number = str(spot.line)
    margin = " " * len(number)
    marks = " " * (spot.column - 1) + "^" * max(1, spot.end_column - spot.column)
    lines = [
        f"{shown(spot.path)}:{spot.line}:{spot.column}: {rule.code} {rule.title}",
        f"{margin} |",
        f"{number} | {spot.source}",
        f"{margin} | {marks}",
        f"{margin} = {finding.message}",
    ]
    lines += [f"{margin} = {shown(at.path)}:{at.line}: {what}" for at, what in finding.related]
    return "\n".join([*lines, f"{margin} = help: {rule.help}", ""])


def json_text(result: Result) -> str:
    """Return one JSON document."""
    told = [
        {
            "code": each.code,
            "name": BY_CODE[each.code].name,
            "message": each.message,
            "help": BY_CODE[each.code].help,
            **_place(each.spot),
            "related": [{"message": what, **_place(at)} for at, what in each.related],
        }
        for each in result.findings
    ]
    unread = [{"path": shown(path), "message": why} for path, why in result.unread]
    document = {"findings": told, "unread": unread, "checked": result.checked}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _place(spot: Spot) -> dict[str, Any]:
    return {"path": shown(spot.path), "line": spot.line, "column": spot.column, "end_column": spot.end_column}


def github(result: Result) -> str:
    """Return workflow commands that GitHub shows beside the code."""
    lines: list[str] = []
    for each in result.findings:
        rule, spot = BY_CODE[each.code], each.spot
        where = (
            f"file={_property(shown(spot.path))},line={spot.line},col={spot.column},endColumn={spot.end_column},"
            f"title={_property(f'{rule.code} {rule.title}')}"
        )
        lines.append(f"::error {where}::{_data(f'{each.message}. {rule.help}')}\n")
    return "".join(lines)


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def sarif(result: Result) -> str:
    """Return a SARIF 2.1.0 log."""
    rules = [
        {
            "id": rule.code,
            "name": "".join(part.capitalize() for part in rule.name.split("-")),
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.why},
            "help": {"text": rule.help},
            "defaultConfiguration": {"level": "error"},
        }
        for rule in RULES
    ]
    indices = {rule.code: index for index, rule in enumerate(RULES)}
    results = [
        {
            "ruleId": each.code,
            "ruleIndex": indices[each.code],
            "level": "error",
            "message": {"text": each.message},
            "locations": [_location(each.spot)],
            "relatedLocations": [
                {"id": number, **_location(at), "message": {"text": what}}
                for number, (at, what) in enumerate(each.related, 1)
            ],
        }
        for each in result.findings
    ]
    unread = [
        {"level": "error", "message": {"text": why}, "locations": [{"physicalLocation": _artifact(path)}]}
        for path, why in result.unread
    ]
    run = {
        "tool": {"driver": {"name": "homeloop check", "version": version("homeloop"), "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not unread, "toolExecutionNotifications": unread}],
        "results": results,
    }
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _location(spot: Spot) -> dict[str, Any]:
    region = {"startLine": spot.line, "startColumn": spot.column, "endColumn": spot.end_column}
    return {"physicalLocation": {**_artifact(spot.path), "region": region}}


def _artifact(path: Path) -> dict[str, Any]:
    name = Path(shown(path))
    return {"artifactLocation": {"uri": name.as_uri() if name.is_absolute() else quote(name.as_posix())}}


def shown(path: Path) -> str:
    """Return a path relative to the working directory, if it lies below it."""
    whole = path.absolute()
    here = Path.cwd()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else whole.as_posix()


FORMATS: dict[str, Callable[[Result], str]] = {"text": text, "json": json_text, "github": github, "sarif": sarif}
