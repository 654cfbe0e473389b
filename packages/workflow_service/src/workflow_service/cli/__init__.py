"""The command line: starts the service's processes and talks to its API like any other client."""

from workflow_service.cli.commands import main

__all__ = ("main",)
