"""Runs that are told to end, are dead, or are resumed."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run 0003_cancel_and_resume.sql."""
    execute_sql_beside(__file__)
