"""What calls to language models took."""

from workflow_service.gateways.postgres.migrating import execute_sql_beside

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run 0006_model_usage.sql."""
    execute_sql_beside(__file__)
