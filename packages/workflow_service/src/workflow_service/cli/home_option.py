"""The option ``--home``, the same for every command that has it."""

from pathlib import Path

import click
import platformdirs

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="WORKFLOW_HOME",
    show_envvar=True,
    default=lambda: platformdirs.user_data_path("workflow-service"),
    show_default="your user data folder",
    help="Folder for the database, the queue, the key and the logs. Only its owner can read it.",
)
