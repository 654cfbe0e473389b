"""What users' calls to language models took, kept in a table."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from workflow_service.domain.language_model import ModelTotal, ModelUsage, UsageReport
from workflow_service.gateways.postgres.connection import Connect, open_session

_RECORD = """
INSERT INTO workflow.model_usage (user_id, run_id, model, input_tokens, output_tokens, cost)
VALUES ($1, $2, $3, $4, $5, $6)
"""

_REPORT = """
SELECT model,
       count(*) AS calls,
       sum(input_tokens)::bigint AS input_tokens,
       sum(output_tokens)::bigint AS output_tokens,
       sum(cost)::float8 AS cost,
       count(*) FILTER (WHERE cost IS NULL) AS calls_without_price
FROM workflow.model_usage
WHERE user_id = $1
  AND ($2::timestamptz IS NULL OR at >= $2)
  AND ($3::timestamptz IS NULL OR at < $3)
  AND ($4::uuid IS NULL OR run_id = $4)
GROUP BY model
ORDER BY cost DESC NULLS LAST, model
"""


class PostgresUsageStore:
    """Fits the UsageStore port."""

    def __init__(self, connect: Connect) -> None:
        """Keep usage in the database that ``connect`` lends connections to."""
        self._connect = connect

    async def record(self, user_id: str, run_id: UUID | None, usage: ModelUsage) -> None:
        """Keep what one call took."""
        cost = None if usage.cost is None else Decimal(repr(usage.cost))
        async with open_session(self._connect, user_id) as connection:
            await connection.execute(
                _RECORD, user_id, run_id, usage.model, usage.input_tokens, usage.output_tokens, cost
            )

    async def report(
        self,
        user_id: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        run_id: UUID | None = None,
    ) -> UsageReport:
        """Return what the user's calls took, by model, the dearest first."""
        async with open_session(self._connect, user_id) as connection:
            rows = await connection.fetch(_REPORT, user_id, since, until, run_id)
        return UsageReport([ModelTotal(**row) for row in rows])
