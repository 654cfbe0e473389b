"""One connection to PostgreSQL for a command that ends soon: no pool."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg

from workflow_service.gateways.postgres.connection import Connect, Connection, prepare_connection

_TIMEOUT = 10.0  # seconds, to connect, and for one statement


def single_connection(dsn: str) -> Connect:
    """Return what opens a connection to the database for each body, and closes it after.

    It may lead through a pooler: nothing is prepared for a second time, and statements should be in transactions.
    """

    @asynccontextmanager
    async def connect() -> AsyncGenerator[Connection, None]:
        connection = await asyncpg.connect(dsn, timeout=_TIMEOUT, command_timeout=_TIMEOUT, statement_cache_size=0)
        try:
            await prepare_connection(connection)
            yield connection
        finally:
            await connection.close(timeout=_TIMEOUT)

    return connect
