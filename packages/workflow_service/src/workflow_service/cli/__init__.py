"""The command line: starts the service's processes and talks to its API like any other client."""

import signal

__all__ = ("main",)


def main() -> None:
    """Run the command that the arguments name."""
    # Until the commands are loaded there is nothing to clean up: Ctrl-C ends the process without a traceback.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from workflow_service.cli.commands import main as commands

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands()
