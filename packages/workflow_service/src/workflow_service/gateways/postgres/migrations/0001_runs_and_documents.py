"""Users' files, runs, and what happens to them."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run 0001_runs_and_documents.sql."""
    execute_sql_beside(__file__)
