"""A connection that the server ends: whatever asyncpg makes of it, the port's error comes out."""

import asyncio

import psycopg
import pytest

from workflow_service.gateways.postgres.connection import open_session
from workflow_service.ports import StoreUnavailableError

pytestmark = pytest.mark.needs("postgres")


@pytest.mark.parametrize("turns", range(5))
def test_a_connection_that_ends_between_two_statements_is_the_stores_fault(with_pool, database, turns):
    """However many turns the loop has had since: the farewell may be unread, read, or followed by the close."""

    async def scenario(pool):
        async with open_session(pool.acquire, "alice") as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            with psycopg.connect(database) as other:  # blocks the loop, so that it has read nothing yet
                other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            for _ in range(turns):
                await asyncio.sleep(0)
            await connection.execute("SELECT 1")

    with pytest.raises(StoreUnavailableError, match="check DATABASE_URL"):
        with_pool(scenario)
