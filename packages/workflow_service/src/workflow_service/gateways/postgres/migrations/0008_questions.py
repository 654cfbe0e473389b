"""Runs that wait for the answer of a person."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Run 0008_questions.sql."""
    execute_sql_beside(__file__)
