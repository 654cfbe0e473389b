"""How many runs wait and work now, for operators."""

from workflow_service.domain.run_statistics import RunStatistics
from workflow_service.gateways.postgres.connection import Connect, open_service_session

# Finished runs are left out: they are counted where they finish. In the words of the three indexes of the others.
UNFINISHED = """
SELECT status, count(*) AS number,
       extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS age,
       count(*) FILTER (WHERE lease_until < clock_timestamp()) AS overdue
FROM workflow.runs WHERE status = 'queued' OR status = 'waiting' OR lease_until IS NOT NULL GROUP BY status
"""


class PostgresRunStatistics:
    """Counts the runs of all users."""

    def __init__(self, connect: Connect) -> None:
        """Count in the database that ``connect`` lends connections to."""
        self._connect = connect

    async def count(self) -> RunStatistics:
        """Return how things stand. Raises StoreUnavailableError."""
        async with open_service_session(self._connect) as connection:
            rows = {row["status"]: row for row in await connection.fetch(UNFINISHED)}
        return RunStatistics(
            unfinished={status: row["number"] for status, row in rows.items()},
            queue_age=rows["queued"]["age"] if "queued" in rows else 0.0,
            overdue=sum(row["overdue"] for row in rows.values()),
        )
