"""Checkpoints are written by the attempt that holds the run, and by no other."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run 0007_fence.sql."""
    execute_sql_beside(__file__)
