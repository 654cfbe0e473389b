"""Answers of external services."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run 0004_service_answers.sql."""
    execute_sql_beside(__file__)
