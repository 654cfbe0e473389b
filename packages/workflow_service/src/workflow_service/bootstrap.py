"""Builds the service: the only module that knows which gateway stands behind which port."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache, partial
from importlib import import_module
from typing import Any, TypeVar
from uuid import UUID

from langgraph.checkpoint.base import BaseCheckpointSaver

from homeloop import Isolation as Tier
from homeloop import IsolationExecutor, LoopLocal, LoopRuntime, bind_callback, run
from homeloop.errors import CallTimeoutError, WorkerDiedError, WorkerStartError
from workflow_service.domain.run import Isolation, JsonObject
from workflow_service.external import ServiceResources, service_registry
from workflow_service.external.addresses import LookUp, look_up
from workflow_service.external.catalog import RegisteredServices
from workflow_service.external.resources import set_current_resources
from workflow_service.external.webhooks import SignedWebhooks
from workflow_service.gateways.celery_queue import CeleryJobQueue
from workflow_service.gateways.chat_client import open_chat_client, rate_limiter
from workflow_service.gateways.document_parser import DocumentParser
from workflow_service.gateways.json_web_tokens import token_verifier
from workflow_service.gateways.language_model import ChatLanguageModel
from workflow_service.gateways.model_setting import model_choice
from workflow_service.gateways.postgres.api_keys import PostgresApiKeyStore
from workflow_service.gateways.postgres.checkpoints import open_checkpoint_pool, saver_on
from workflow_service.gateways.postgres.connection import Connect, Connection
from workflow_service.gateways.postgres.documents import PostgresDocumentStore
from workflow_service.gateways.postgres.feed import PostgresRunFeed
from workflow_service.gateways.postgres.observed_runs import ObservedRunStore
from workflow_service.gateways.postgres.pool import lend, open_pool
from workflow_service.gateways.postgres.run_statistics import PostgresRunStatistics
from workflow_service.gateways.postgres.runs import CANCEL_CHANNEL, PostgresRunStore
from workflow_service.gateways.postgres.schema import is_migrated
from workflow_service.gateways.postgres.service_answers import PostgresAnswerCache
from workflow_service.gateways.postgres.usage import PostgresUsageStore
from workflow_service.gateways.postgres.webhooks import PostgresWebhookStore
from workflow_service.logs import bound, configure_logs
from workflow_service.ports import (
    InvalidSettingError,
    LanguageModel,
    ProcessLostError,
    Report,
    RunTimeoutError,
    ServiceCatalog,
    StoreUnavailableError,
    Workflow,
)
from workflow_service.settings import Settings
from workflow_service.usecases.identification import Identification
from workflow_service.usecases.performing import Performer, perform_elsewhere
from workflow_service.usecases.services import ApiServices, WorkerServices
from workflow_service.workflows.contract_analysis import contract_analysis
from workflow_service.workflows.contract_reading import ModelReading
from workflow_service.workflows.library import all_workflows
from workflow_service.workflows.plugins import WorkflowTools
from workflow_service.workflows.workflow_engine import WorkflowEngine

T = TypeVar("T")

_NAMES_CLOSE = 1.0  # seconds; a thread that a resolver holds is left behind then
_CHECK_TIMEOUT = 2.0  # seconds for each part; who asks for readiness gives up soon


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[ApiServices]:
    """Open what the HTTP side works with, on the running loop; close it at the end.

    Brings the schema up to date first.

    Raises:
        SchemaTooNewError: The database was migrated by a newer release.
        InvalidSettingError: A file that a setting names cannot be used, or a pooler stands before the database and
            no setting says so.
        OSError, asyncpg.PostgresError, StoreUnavailableError: The database is away.
    """
    # Alembic weighs 24 MB: not for workers, which import this module too. It takes a second on a busy machine: not
    # on the loop.
    migrator = await asyncio.to_thread(import_module, "workflow_service.gateways.postgres.migrator")
    connect = _connect(settings)
    names = LoopRuntime(name="names")
    resources = _resources(settings, connect, names)
    catalog = RegisteredServices(service_registry, resources)
    async with (
        _closing(names),
        PostgresRunFeed(settings.direct_url) as feed,
        aclosing(CeleryJobQueue(settings.broker_url)) as queue,
    ):
        await migrator.migrate(settings.direct_url)
        # Asked the other way: a setting that makes no connection usable is told at the start, too.
        if not await is_migrated(connect):
            raise InvalidSettingError(
                "WORKFLOW_DATABASE_DIRECT_URL leads to another database than DATABASE_URL: the schema was brought "
                "up to date there, and is not here"
            )

        async def ready() -> Mapping[str, bool]:
            return await _check(connect, queue)

        yield ApiServices(
            runs=PostgresRunStore(connect, keep_for=settings.resumable_for),
            documents=PostgresDocumentStore(connect),
            usage=PostgresUsageStore(connect),
            feed=feed,
            queue=queue,
            workflows=_workflows(settings, connect, catalog),
            identification=_identification(settings, connect),
            catalog=catalog,
            webhooks=PostgresWebhookStore(connect),
            webhook_sender=_webhook_sender(settings, resources),
            answers=PostgresAnswerCache(connect, settings.service_cache_entries),
            settings=settings,
            ready=ready,
            count_runs=PostgresRunStatistics(connect).count,
        )


def _identification(settings: Settings, connect: Connect) -> Identification:
    fixed = {user_id: key.get_secret_value() for user_id, key in settings.api_keys.items()}
    return Identification(fixed, PostgresApiKeyStore(connect), token_verifier(settings))


def worker_services(settings: Settings) -> WorkerServices:
    """Join what a worker works with. Nothing is opened before the first run asks for it."""
    connect = _connect(settings)
    resources = _resources(settings, connect, LoopRuntime(name="names"))
    set_current_resources(resources)  # for code that opens services by itself
    workflows = _workflows(settings, connect, RegisteredServices(service_registry, resources))
    executor = IsolationExecutor(name="runs", preload=(__name__,))
    return WorkerServices(
        runs=ObservedRunStore(connect, keep_for=settings.resumable_for),
        workflows=workflows,
        feed=_CancelFeed(settings.direct_url),
        perform=Performer(
            workflows=workflows,
            run_apart=partial(_run_apart, executor),
            report_through=partial(bind_callback, on_error="raise"),
            elsewhere=_run_elsewhere,
        ),
    )


def workflow_engine(settings: Settings) -> WorkflowEngine:
    """Join what runs workflows here and now, without a queue. Nothing is opened before the first run.

    The database's schema must be up to date: the API sees to it, or ``workflow-service migrate``.
    """
    return WorkflowEngine(worker_services(settings).workflows, run)


def set_up_logs(settings: Settings) -> None:
    """Send what all loggers of this process say to where the settings want it. Thread: the one that sets it up."""
    configure_logs(
        style=settings.log_format,
        level=settings.log_level,
        secrets=settings.secrets(),
        pseudonym_key=settings.pseudonym_key,
    )


class _CancelFeed:
    """Fits the RunFeed port: wakes for runs that are to end, over one connection of the running loop's own."""

    def __init__(self, database_url: str) -> None:
        self._feeds = LoopLocal(lambda: PostgresRunFeed(database_url, CANCEL_CHANNEL), name="cancel feed")

    @asynccontextmanager
    async def watch(self, run_id: UUID) -> AsyncIterator[Callable[[float], Awaitable[bool]]]:
        async with self._feeds() as feed, feed.watch(run_id) as wait:
            yield wait


async def _run_apart(
    executor: IsolationExecutor,
    fn: Callable[..., Awaitable[T]],
    *args: Any,  # Any: the function's own
    isolation: Isolation,
    timeout: float | None,
    name: str,
    on_progress: Callable[..., Awaitable[None]] | None = None,
) -> T:
    """Run ``fn(*args)`` in a tier, and say in the service's own words what became of it there."""
    try:
        return await executor.run(
            fn, *args, isolation=Tier(isolation), timeout=timeout, context_id=name, on_progress=on_progress
        )
    except CallTimeoutError as error:
        if timeout is None:  # of something that the workflow itself has called
            raise
        raise RunTimeoutError(
            f"the run took longer than its timeout of {timeout:g} s; allow more, or resume it where it stands"
        ) from error
    except WorkerDiedError as error:
        raise ProcessLostError("the process of its own that the run worked in ended under it") from error
    except WorkerStartError as error:
        raise ProcessLostError("no process of its own could be started for the run") from error


@cache
def _services_elsewhere() -> WorkerServices:
    """The services of a process that works for a worker: built anew there, from the same environment."""
    settings = Settings.from_environment()
    set_up_logs(settings)
    return worker_services(settings)


async def _run_elsewhere(
    run_id: UUID,
    attempt: int,
    user_id: str,
    workflow_name: str,
    input_data: JsonObject,
    answers: JsonObject,
    report: Report,
) -> JsonObject:
    """Run a workflow in a process of its own."""
    services = _services_elsewhere()
    with bound(run_id=run_id, user_id=user_id):
        return await perform_elsewhere(
            run_id,
            attempt,
            user_id,
            workflow_name,
            input_data,
            answers,
            report,
            workflows=services.workflows,
            runs=services.runs,
        )


def _connect(settings: Settings) -> Connect:
    """Lend connections of the running loop's own pool, which is closed with that loop."""
    pools = LoopLocal(
        lambda: open_pool(
            settings.database_url, settings.database_pool_size, settings.run_lease, settings.database_pooler
        ),
        name="database pool",
    )

    @asynccontextmanager
    async def connect() -> AsyncGenerator[Connection, None]:
        async with pools() as pool, lend(pool) as connection:
            yield connection

    return connect


def _resources(settings: Settings, connect: Connect, names: LoopRuntime) -> ServiceResources:
    answers = PostgresAnswerCache(connect, settings.service_cache_entries)
    return ServiceResources(settings, answers, look_up_on(names))


def look_up_on(names: LoopRuntime) -> LookUp:
    """Return what asks the resolver for addresses on the threads of ``names``, wherever it is called.

    A resolver that does not answer holds threads of nobody else. They are as many as an executor of asyncio has,
    and daemons: one that is stuck keeps no process from ending. Who waits for a thread, or for an answer, does so
    within its own time.
    """

    async def look_up_there(host: str, port: int) -> Sequence[str]:
        return await names.arun(look_up, host, port)

    return look_up_there


@asynccontextmanager
async def _closing(names: LoopRuntime) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await asyncio.to_thread(names.close, _NAMES_CLOSE)


def _webhook_sender(settings: Settings, resources: ServiceResources) -> SignedWebhooks:
    secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
    return SignedWebhooks(secrets, resources.policy, settings.webhook_timeout)


def _workflows(settings: Settings, connect: Connect, catalog: ServiceCatalog) -> Mapping[str, Workflow]:
    pools = LoopLocal(
        lambda: open_checkpoint_pool(
            settings.database_url,
            settings.checkpoint_pool_size,
            settings.run_lease,
            direct_dsn=settings.direct_url,
            pooler=settings.database_pooler,
        ),
        name="checkpoint pool",
    )

    @asynccontextmanager
    async def checkpointer(run_id: UUID, attempt: int | None) -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with pools() as pool, saver_on(pool, run_id, attempt) as saver:
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
    documents = PostgresDocumentStore(connect)
    model = _language_model(settings, connect)
    tools = WorkflowTools(documents, parser, catalog, model=model, checkpointer=checkpointer)
    return all_workflows([contract_analysis(tools, reading)], tools, settings.definitions)


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
