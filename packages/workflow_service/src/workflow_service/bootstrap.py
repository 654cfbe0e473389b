"""Builds the service: the only module that knows which gateway stands behind which port."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import asyncpg

from workflow_service.gateways.celery_queue import CeleryJobQueue
from workflow_service.gateways.postgres.connection import Connect, prepare_connection
from workflow_service.gateways.postgres.documents import PostgresDocumentStore
from workflow_service.gateways.postgres.feed import PostgresRunFeed
from workflow_service.gateways.postgres.migrator import is_migrated, migrate
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import StoreUnavailableError
from workflow_service.settings import Settings
from workflow_service.usecases.services import ApiServices

_COMMAND_TIMEOUT = 30.0  # seconds for one statement


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[ApiServices]:
    """Open what the HTTP side works with, on the running loop; close it at the end.

    Brings the schema up to date first.

    Raises:
        SchemaTooNewError: The database was migrated by a newer release.
        OSError, asyncpg.PostgresError, StoreUnavailableError: The database is away.
    """
    async with (
        asyncpg.create_pool(
            settings.database_url,
            min_size=1,
            max_size=settings.database_pool_size,
            init=prepare_connection,
            command_timeout=_COMMAND_TIMEOUT,
        ) as pool,
        PostgresRunFeed(settings.database_url) as feed,
        aclosing(CeleryJobQueue(settings.broker_url)) as queue,
    ):
        await migrate(pool.acquire)

        async def ready() -> Mapping[str, bool]:
            return await _check(pool.acquire, queue)

        yield ApiServices(
            runs=PostgresRunStore(pool.acquire),
            documents=PostgresDocumentStore(pool.acquire),
            feed=feed,
            queue=queue,
            workflows={},
            settings=settings,
            ready=ready,
        )


async def _check(connect: Connect, queue: CeleryJobQueue) -> Mapping[str, bool]:
    schema, is_queue_reachable = await asyncio.gather(_is_migrated(connect), queue.is_reachable())
    return {"database": schema is not None, "migrations": schema is True, "queue": is_queue_reachable}


async def _is_migrated(connect: Connect) -> bool | None:
    """Return whether the schema is right; None when the database does not answer."""
    try:
        return await is_migrated(connect)
    except StoreUnavailableError:
        return None
