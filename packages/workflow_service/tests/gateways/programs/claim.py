"""Claims a run as a worker does: ``claim.py DATABASE_URL RUN_ID LEASE``; says what came of it."""

import asyncio
import sys
from contextlib import asynccontextmanager
from uuid import UUID

from workflow_service.gateways.postgres.pool import lend, open_pool
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import StoreUnavailableError


async def main(url: str, run_id: UUID, lease: float) -> None:
    async with open_pool(url, 1, lease) as pool:

        @asynccontextmanager
        async def connect():
            async with lend(pool) as connection:
                yield connection

        try:
            print(await PostgresRunStore(connect).claim(run_id, "frozen", lease))
        except StoreUnavailableError as error:
            print(f"StoreUnavailableError: {error}")


asyncio.run(main(sys.argv[1], UUID(sys.argv[2]), float(sys.argv[3])))
