"""Builds the service: the only module that knows which gateway stands behind which port."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from uuid import UUID

from langgraph.checkpoint.base import BaseCheckpointSaver

from homeloop import LoopLocal
from workflow_service.domain.language_model import ModelPrices
from workflow_service.external import ServiceResources, service_registry
from workflow_service.external.catalog import RegisteredServices
from workflow_service.external.resources import set_current_resources
from workflow_service.gateways.celery_queue import CeleryJobQueue
from workflow_service.gateways.chat_client import ModelChoice, open_chat_client, rate_limiter
from workflow_service.gateways.document_parser import DocumentParser
from workflow_service.gateways.json_web_tokens import FixedKey, JsonWebTokens, KeySet
from workflow_service.gateways.language_model import ChatLanguageModel
from workflow_service.gateways.postgres.api_keys import PostgresApiKeyStore
from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool, saver_on
from workflow_service.gateways.postgres.connection import Connect, Connection
from workflow_service.gateways.postgres.documents import PostgresDocumentStore
from workflow_service.gateways.postgres.feed import PostgresRunFeed
from workflow_service.gateways.postgres.pool import lend, open_pool
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.gateways.postgres.schema import is_migrated
from workflow_service.gateways.postgres.usage import PostgresUsageStore
from workflow_service.ports import LanguageModel, StoreUnavailableError, Workflow
from workflow_service.settings import Settings
from workflow_service.usecases.identification import Identification
from workflow_service.usecases.services import ApiServices, WorkerServices
from workflow_service.workflows.contract_analysis import ContractAnalysis
from workflow_service.workflows.contract_reading import ModelReading

_CHECK_TIMEOUT = 2.0  # seconds for each part; who asks for readiness gives up soon


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[ApiServices]:
    """Open what the HTTP side works with, on the running loop; close it at the end.

    Brings the schema up to date first.

    Raises:
        SchemaTooNewError: The database was migrated by a newer release.
        InvalidSettingError: A file that a setting names cannot be used.
        OSError, asyncpg.PostgresError, StoreUnavailableError: The database is away.
    """
    # Alembic weighs 24 MB: not for workers, which import this module too.
    from workflow_service.gateways.postgres.migrator import migrate

    connect = _connect(settings)
    async with (
        PostgresRunFeed(settings.database_url) as feed,
        aclosing(CeleryJobQueue(settings.broker_url)) as queue,
    ):
        await migrate(settings.database_url)

        async def ready() -> Mapping[str, bool]:
            return await _check(connect, queue)

        yield ApiServices(
            runs=PostgresRunStore(connect),
            documents=PostgresDocumentStore(connect),
            usage=PostgresUsageStore(connect),
            feed=feed,
            queue=queue,
            workflows=_workflows(settings, connect),
            identification=_identification(settings, connect),
            catalog=RegisteredServices(service_registry, _resources(settings)),
            settings=settings,
            ready=ready,
        )


def _identification(settings: Settings, connect: Connect) -> Identification:
    fixed = {user_id: key.get_secret_value() for user_id, key in settings.api_keys.items()}
    return Identification(fixed, PostgresApiKeyStore(connect), _tokens(settings))


def _tokens(settings: Settings) -> JsonWebTokens | None:
    """Return what verifies tokens; None where no issuer is configured. Raises InvalidSettingError."""
    algorithm, issuer, audience = settings.jwt_algorithm, settings.jwt_issuer, settings.jwt_audience
    if algorithm is None or issuer is None or audience is None:
        return None
    keys: FixedKey | KeySet
    if settings.jwt_secret is not None:
        keys = FixedKey(settings.jwt_secret.get_secret_value())
    elif settings.jwt_public_key_file is not None:
        keys = FixedKey.of_file(settings.jwt_public_key_file, algorithm)
    else:
        assert settings.jwt_jwks_file is not None  # the settings see to it that there is one of the three
        keys = KeySet(settings.jwt_jwks_file, algorithm)
    return JsonWebTokens(algorithm, keys, issuer, audience, settings.jwt_leeway)


def worker_services(settings: Settings) -> WorkerServices:
    """Join what a worker works with. Nothing is opened before the first run asks for it."""
    connect = _connect(settings)
    set_current_resources(_resources(settings))  # for code that opens services by itself
    return WorkerServices(runs=PostgresRunStore(connect), workflows=_workflows(settings, connect))


def _connect(settings: Settings) -> Connect:
    """Lend connections of the running loop's own pool, which is closed with that loop."""
    pools = LoopLocal(
        lambda: open_pool(settings.database_url, settings.database_pool_size, settings.run_lease),
        name="database pool",
    )

    @asynccontextmanager
    async def connect() -> AsyncGenerator[Connection, None]:
        async with pools() as pool, lend(pool) as connection:
            yield connection

    return connect


def _resources(settings: Settings) -> ServiceResources:
    return ServiceResources(settings)


def _workflows(settings: Settings, connect: Connect) -> Mapping[str, Workflow]:
    pools = LoopLocal(
        lambda: open_checkpoint_pool(settings.database_url, settings.checkpoint_pool_size, settings.run_lease),
        name="checkpoint pool",
    )

    @asynccontextmanager
    async def checkpointer(run_id: UUID) -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with pools() as pool, saver_on(pool, run_id) as saver:
            yield saver

    parser = DocumentParser(
        timeout=settings.parse_timeout,
        memory_bytes=settings.parse_memory_bytes,
    )
    reading = ModelReading(
        with_model=settings.analysis_with_model,
        window_chars=settings.analysis_window_chars,
        most_windows=settings.analysis_most_windows,
    )
    model = _language_model(settings, connect)
    workflows = (ContractAnalysis(PostgresDocumentStore(connect), parser, checkpointer, model, reading),)
    return {workflow.name: workflow for workflow in workflows}


def model_choice(settings: Settings) -> ModelChoice | None:
    """Return which language model is configured and how it is asked; None without one."""
    if settings.model is None:
        return None
    prices = None
    if settings.model_input_price is not None and settings.model_output_price is not None:
        prices = ModelPrices(settings.model_input_price, settings.model_output_price)
    return ModelChoice(
        settings.model,
        key=settings.model_key.get_secret_value() if settings.model_key else None,
        base_url=settings.model_base_url,
        temperature=settings.model_temperature,
        max_tokens=settings.model_max_tokens,
        timeout=settings.model_timeout,
        attempts=settings.model_attempts,
        concurrency=settings.model_concurrency,
        requests_per_minute=settings.model_requests_per_minute,
        prices=prices,
        method=settings.model_structured_output,
        options=settings.model_options,
    )


def _language_model(settings: Settings, connect: Connect) -> LanguageModel | None:
    """Return the model that is configured, with a client for each loop that asks it; None without one."""
    choice = model_choice(settings)
    if choice is None:
        return None
    limiter = rate_limiter(choice)
    clients = LoopLocal(lambda: open_chat_client(choice, limiter), name="language model")
    return ChatLanguageModel(choice, clients, PostgresUsageStore(connect).record)


async def _check(connect: Connect, queue: CeleryJobQueue) -> Mapping[str, bool]:
    schema, is_queue_reachable = await asyncio.gather(_is_migrated(connect), _is_reachable(queue))
    return {"database": schema is not None, "migrations": schema is True, "queue": is_queue_reachable}


async def _is_migrated(connect: Connect) -> bool | None:
    """Return whether the schema is right; None when the database does not answer."""
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            return await is_migrated(connect)
    except (StoreUnavailableError, TimeoutError):
        return None


async def _is_reachable(queue: CeleryJobQueue) -> bool:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            return await queue.is_reachable()
    except TimeoutError:
        return False
