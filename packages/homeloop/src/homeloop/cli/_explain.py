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
        help="say what a code like LOOP101 or HL104 means and what to change",
        description="Say what a finding of doctor (LOOP101) or a rule of check (HL101) means, with code that "
        "fails and code that works. Without a code: list all.",
    )
    parser.add_argument(
        "code", nargs="?", metavar="CODE", help="for instance LOOP101 or HL104, or its name: reuse-across-runs"
    )
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from homeloop.cli._check._pages import explain_rule, list_rules

    if chosen.code is None:
        sys.stdout.write(f"{explain_all()}\nRules of homeloop check:\n\n{list_rules()}")
        return 0
    rule = explain_rule(chosen.code)
    try:
        sys.stdout.write(explain(chosen.code) if rule is None else rule)
    except LookupError as error:
        is_rule = chosen.code.strip().upper().startswith("HL")
        why = f"there is no rule {chosen.code!r}; homeloop check --list shows them" if is_rule else error.args[0]
        sys.stderr.write(f"homeloop explain: {why}\n")
        return 2
    return 0
