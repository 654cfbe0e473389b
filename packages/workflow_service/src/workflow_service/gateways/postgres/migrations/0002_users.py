"""Keys, and row security on every table of users."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run 0002_users.sql."""
    execute_sql_beside(__file__)
