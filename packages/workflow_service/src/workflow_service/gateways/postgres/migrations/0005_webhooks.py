"""Webhooks that tell of the endings of runs."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run 0005_webhooks.sql."""
    execute_sql_beside(__file__)
