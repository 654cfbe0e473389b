"""``homeloop explain [CODE]``: what a code means."""

import argparse
import sys
from typing import TYPE_CHECKING

from homeloop.diagnosis import explain, explain_all

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]


def add_to(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "explain",
        help="say what a code like LOOP101 means and what to change",
        description="Say what a code means, with code that fails and code that works. Without a code: list all.",
    )
    parser.add_argument(
        "code", nargs="?", metavar="CODE", help="for instance LOOP101, or its name: reuse-across-runs"
    )
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.code is None:
        sys.stdout.write(explain_all())
        return 0
    from homeloop.cli._check._pages import explain_rule

    rule = explain_rule(chosen.code)
    try:
        sys.stdout.write(explain(chosen.code) if rule is None else rule)
    except LookupError as error:
        sys.stderr.write(f"homeloop explain: {error.args[0]}\n")
        return 2
    return 0
