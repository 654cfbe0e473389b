"""The command line: ``homeloop explain`` and its siblings."""

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from homeloop.cli import _check, _doctor, _explain, _page, _ps, _top

__all__ = ("main",)

_COMMANDS = (_check, _doctor, _explain, _page, _ps, _top)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command line.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 when something was found, 2 when the command line is wrong, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="homeloop",
        description="Find out why asyncio says 'attached to a different loop' or 'Event loop is closed'.",
    )
    parser.add_argument("--version", action="version", version=f"homeloop {version('homeloop')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except BrokenPipeError:
        sys.stderr.close()  # who read our output has gone; the interpreter would complain of it at exit
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
