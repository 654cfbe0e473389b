"""What goes over a connection; of one that the server ends, whatever asyncpg makes, the port's error comes out."""

import asyncio
import json
from threading import get_ident

import psycopg
import pytest

from workflow_service.gateways.postgres import connection as connection_module
from workflow_service.gateways.postgres.connection import encode_json, encode_json_aside, open_session
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


def test_only_a_large_value_is_encoded_on_a_thread(monkeypatch):
    """The loop goes on meanwhile; for a small one, that would cost more than the encoding."""
    on = []

    def noted(value):
        on.append(get_ident())
        return encode_json(value)

    monkeypatch.setattr(connection_module, "encode_json", noted)
    small = [{"answer": 1}, [], "text", [{"span": [1, 2]}] * 30]
    large = [
        {"text": "x" * 1_000_000},
        [{"span": [1, 2]}] * 1000,
        {"a": {"b": [[0] * 50] * 50}},
        ["x" * 9_000] * 100,
    ]

    async def main():
        for value in (*small, *large):
            assert json.loads(await encode_json_aside(value)) == value
        return [ident == get_ident() for ident in on]

    assert asyncio.run(main()) == [True] * len(small) + [False] * len(large)
