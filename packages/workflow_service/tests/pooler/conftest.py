"""A database behind a pooler of transactions that has fewer sessions than it has clients."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import pytest

from workflow_service.gateways.postgres.connection import Connect
from workflow_service.gateways.postgres.pool import lend, open_pool

T = TypeVar("T")
PgBouncer = Callable[..., str]
LEASE = 30.0  # seconds
BOUND = 60.0  # seconds, for a scenario


@dataclass(frozen=True)
class Pooled:
    """The addresses of one database: through the pooler, and past it."""

    url: str
    direct_url: str

    def run(self, scenario: Callable[[Connect, Connect], Awaitable[T]], lease: float = LEASE) -> T:
        """Run ``scenario`` with two clients of the pooler, each of which has one connection to it."""

        async def main() -> T:
            async with (
                asyncio.timeout(BOUND),
                open_pool(self.url, 1, lease, "transaction") as one,
                open_pool(self.url, 1, lease, "transaction") as other,
            ):
                return await scenario(lambda: lend(one), lambda: lend(other))

        return asyncio.run(main())

    def ask(self, query: str, *arguments: Any) -> Any:
        """Ask the database itself, as its superuser."""

        async def main() -> Any:
            connection = await asyncpg.connect(self.direct_url)
            try:
                return await connection.fetchval(query, *arguments)
            finally:
                await connection.close()

        return asyncio.run(main())


@pytest.fixture
def pooled(database: str, pgbouncer: PgBouncer) -> Pooled:
    """One session for all clients."""
    return Pooled(pgbouncer(database, "transaction", 1), database)
