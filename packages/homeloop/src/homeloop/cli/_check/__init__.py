"""``homeloop check PATH``: find loop faults in source code, without running it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]

_FORMATS = ("text", "json", "github", "sarif")
_FOUND, _WRONG = 1, 2
_MAX_SHOWN = 200  # characters of a path in a message


def add_to(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "check",
        help="find loop faults in source code, without running it",
        description="Look for what fails when event loops come and go: clients that several loops share, "
        "loops started inside loops, queues that threads write to. All files are read as one project. A shared "
        "client is reported only if the code shows several loops that use it: a Celery task, an endpoint, a "
        "thread, asyncio.run() again and again.",
        epilog="Suppress a finding with a comment on its line: # homeloop: ignore[HL101]. [tool.homeloop.check] "
        "in pyproject.toml has select, ignore, exclude and per-file-ignores. homeloop explain HL101 tells more. "
        "Exit code: 0 nothing found, 1 something found, 2 a file or the configuration could not be read, or there "
        "is no Python file.",
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders; default: here")
    parser.add_argument("--format", choices=_FORMATS, default="text", help="default: text")
    parser.add_argument("--select", metavar="CODES", help="only these rules: codes or names, with commas")
    parser.add_argument("--ignore", metavar="CODES", help="not these rules")
    parser.add_argument("--list", action="store_true", help="list the rules")
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    # What only this command needs is loaded with it.
    from homeloop.cli._check._config import ConfigError, read_config
    from homeloop.cli._check._examine import examine
    from homeloop.cli._check._formats import FORMATS, shown
    from homeloop.cli._check._pages import list_rules

    if chosen.list:
        sys.stdout.write(list_rules())
        return 0
    paths: list[Path] = chosen.paths or [Path()]
    for path in paths:
        try:
            path.stat()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            sys.stderr.write(f"homeloop check: {str(path)[:_MAX_SHOWN]!r} cannot be read: {why}\n")
            return _WRONG
    try:
        config = read_config(paths[0]).chosen(chosen.select, chosen.ignore)
    except ConfigError as error:
        sys.stderr.write(f"homeloop check: {error}\n")
        return _WRONG
    result = examine(paths, config)
    sys.stdout.write(FORMATS[chosen.format](result))
    for path, why in result.unread:
        sys.stderr.write(f"homeloop check: not checked: {shown(path)}: {why}\n")
    if not result.checked and not result.unread and not config.exclude:
        sys.stderr.write("homeloop check: there are no Python files to check\n")
        return _WRONG
    if result.unread:
        return _WRONG
    return _FOUND if result.findings else 0
