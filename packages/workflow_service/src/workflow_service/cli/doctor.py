"""``doctor``: whether the service can work here, a line for each thing it needs, and what to do about it."""

import asyncio
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path

import asyncpg

from workflow_service.cli.settings_view import read_settings
from workflow_service.external import ServiceResources, service_registry
from workflow_service.external.catalog import RegisteredServices
from workflow_service.gateways.broker_checkup import answering_workers, redis_faults
from workflow_service.gateways.chat_client import open_chat_client
from workflow_service.gateways.json_web_tokens import token_verifier
from workflow_service.gateways.model_setting import model_choice
from workflow_service.gateways.postgres.api_keys import PostgresApiKeyStore
from workflow_service.gateways.postgres.connection import Connection
from workflow_service.gateways.postgres.pooler import ADVICE, find_pooler
from workflow_service.gateways.postgres.run_statistics import PostgresRunStatistics
from workflow_service.gateways.postgres.schema import SCHEMA, current_revision, revisions
from workflow_service.gateways.postgres.single import single_connection
from workflow_service.gateways.servers import UnusableServerError, check_broker, check_database, without_password
from workflow_service.local.errors import LocalError
from workflow_service.ports import DatabaseRightsError, InvalidSettingError, ServiceError, WorkflowError
from workflow_service.settings import Settings
from workflow_service.workflows.engine.loading import load_folder

_OLDEST_POSTGRESQL = 140_000
_SHORTEST_KEY = 20  # characters: fewer can be guessed
_EXAMPLE_KEY = "change-me"  # how the one of deploy/service.env.example begins
_CLOCK_DIFFERENCE = 2.0  # seconds
_FREE_BYTES = 1024**3
_QUEUE_AGE = 60.0  # seconds
_DESCRIPTORS = 1024
_PACKAGES = ("workflow-service", "homeloop", "celery", "kombu", "fastapi", "langgraph", "asyncpg", "psycopg")


class State(IntEnum):
    """How a check came out; the worst is the largest."""

    OK = 0
    WARNING = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the service needs."""

    subject: str
    state: State
    found: str
    advice: str = ""


async def run_checks() -> list[Check]:
    """Look at everything; what cannot be looked at because something before it failed is left out."""
    checks = [_versions()]
    try:
        settings = read_settings()
    except LocalError as error:
        return [
            *checks,
            Check("settings", State.FAILED, str(error).splitlines()[1].strip(), str(error)),
            *_machine(),
        ]
    checks += [
        Check("settings", State.OK, "all valid"),
        *_weak_keys(settings),
        *_tokens(settings),
        _services(settings),
        await _language_model(settings),
        *_definitions(settings),
    ]
    checks += [check async for check in _database(settings)]
    checks += [check async for check in _broker(settings)]
    return [*checks, *_machine()]


def _versions() -> Check:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return Check("versions", State.OK, f"Python {platform.python_version()}, {packages}")


def _weak_keys(settings: Settings) -> Iterator[Check]:
    keys = {user: key.get_secret_value() for user, key in settings.api_keys.items()}
    weak = [user for user, key in keys.items() if len(key) < _SHORTEST_KEY or key.startswith(_EXAMPLE_KEY)]
    if weak:
        found = f"of the {len(settings.api_keys)} in WORKFLOW_API_KEYS {len(weak)} can be guessed"
        advice = f"give {', '.join(weak)} a longer one: workflow-service keys create, or openssl rand -hex 24"
        yield Check("API keys", State.WARNING, found, advice)


def _tokens(settings: Settings) -> Iterator[Check]:
    try:
        token_verifier(settings)
    except InvalidSettingError as error:
        found, _, advice = str(error).partition("; ")
        yield Check("tokens", State.FAILED, found, advice or "see docs/howto/users.md")


def _services(settings: Settings) -> Check:
    services = RegisteredServices(service_registry, ServiceResources(settings)).describe()
    able, unable = ([each.name for each in services if each.is_configured is is_able] for is_able in (True, False))
    broken = service_registry.broken()
    found = f"set up: {', '.join(able) or 'none'}" + (f"; without a key: {', '.join(unable)}" if unable else "")
    if broken:
        advice = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
        return Check("services", State.WARNING, f"{found}; broken plug-ins: {', '.join(broken)}", advice)
    if unable:
        example = f"WORKFLOW_SERVICES__{unable[0].upper()}__API_KEY"
        return Check("services", State.OK, found, f"runs that ask those fail; if any do, set {example} and so on")
    return Check("services", State.OK, found)


async def _language_model(settings: Settings) -> Check:
    """Set the model up as a worker would; its provider is not asked, for that could cost money."""
    subject = "language model"
    try:
        choice = model_choice(settings)
        if choice is None:
            if settings.analysis_with_model:
                found = "none, though WORKFLOW_ANALYSIS_WITH_MODEL asks for one: rules alone read"
                return Check(subject, State.WARNING, found, "set WORKFLOW_MODEL, or unset that")
            advice = "contracts are read by rules only; to have one set WORKFLOW_MODEL and WORKFLOW_MODEL_KEY"
            return Check(subject, State.OK, "none", advice)
        async with open_chat_client(choice):
            pass
    except (InvalidSettingError, WorkflowError) as error:
        found, _, advice = str(error).partition("; ")
        return Check(subject, State.FAILED, found, advice or "see docs/howto/language-model.md")
    key = "key set" if choice.key else "WORKFLOW_MODEL_KEY is not set: its provider's own variable or none"
    return Check(subject, State.OK, f"{choice.name}, {key}; the provider was not asked")


def _definitions(settings: Settings) -> Iterator[Check]:
    if settings.definitions is None:
        return
    loaded = load_folder(settings.definitions)
    found = f"{len(loaded.definitions)} of {settings.definitions} can be used"
    if loaded.problems:
        faults = "; ".join(map(str, loaded.problems))
        yield Check("definitions", State.WARNING, f"{found}, not all: {len(loaded.problems)} faults", faults)
    else:
        yield Check("definitions", State.OK, found)


async def _keys(settings: Settings) -> Check:
    try:
        kept = await PostgresApiKeyStore(single_connection(settings.database_url)).list_keys()
    except DatabaseRightsError as error:
        return Check("rights", State.FAILED, str(error), "see docs/howto/production.md")
    found = f"{len(settings.api_keys)} in WORKFLOW_API_KEYS, {len(kept)} in the database"
    if settings.jwt_algorithm is not None:
        found += f", and tokens of {settings.jwt_issuer}"
    elif not settings.api_keys and not kept:
        advice = "make one: workflow-service keys create NAME"
        return Check("API keys", State.WARNING, f"{found}: every request is refused", advice)
    return Check("API keys", State.OK, found)


async def _database(settings: Settings) -> AsyncIterator[Check]:
    try:
        await check_database(settings.database_url)
    except UnusableServerError as error:
        found, _, advice = str(error).rpartition("; ")
        yield Check("database", State.FAILED, found, advice)
        return
    connect = single_connection(settings.database_url)
    try:
        yield await _pooler(settings)
        async with connect() as connection, connection.transaction():
            for look in (_server, _connections, _clock, _rights):
                yield await look(connection, settings)
        schema = await _schema(settings)
        yield schema
        if schema.state is State.OK:  # else the tables may not be there to ask
            yield await _keys(settings)
            yield await _queue(settings)
    except (ServiceError, OSError, asyncpg.PostgresError) as error:
        yield Check("database", State.FAILED, f"it went away meanwhile: {error}", "look at its log")


async def _pooler(settings: Settings) -> Check:
    """Look what stands between, and whether the settings fit: nobody hears of changes through a pooler."""
    found = await find_pooler(settings.database_url)
    if settings.database_pooler is None:
        if found is None:
            return Check("pooler", State.OK, "none: DATABASE_URL leads to the server itself")
        kind = "transactions" if found == "transaction" else "a kind that it does not tell"
        return Check("pooler", State.FAILED, f"a pooler of {kind} stands before the database", ADVICE)
    shown = without_password(settings.direct_url)
    try:
        is_same = await _identity(settings.database_url) == await _identity(settings.direct_url)
        past = await find_pooler(settings.direct_url)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        advice = "correct WORKFLOW_DATABASE_DIRECT_URL, the address of the database past its pooler"
        return Check("pooler", State.FAILED, f"the database does not answer at {shown}: {error}", advice)
    if not is_same:
        advice = "let WORKFLOW_DATABASE_DIRECT_URL and DATABASE_URL lead to the same database"
        return Check("pooler", State.FAILED, f"another database is at {shown}", advice)
    if past == "transaction":
        advice = "set WORKFLOW_DATABASE_DIRECT_URL to an address past it: nobody hears of changes through it"
        return Check("pooler", State.FAILED, f"a pooler of transactions stands before {shown}, too", advice)
    between = "none seen, which does no harm" if found is None else "one stands between, as set"
    return Check("pooler", State.OK, f"{between}; past it: {shown}")


async def _identity(url: str) -> object:
    """Return what tells a database from others: its server's start and its number there."""
    async with single_connection(url)() as connection, connection.transaction():
        return await connection.fetchrow(
            "SELECT pg_postmaster_start_time(), oid FROM pg_database WHERE datname = current_database()"
        )


async def _server(connection: Connection, settings: Settings) -> Check:
    number = int(await connection.fetchval("SHOW server_version_num"))
    name = await connection.fetchval("SHOW server_version")
    found = f"PostgreSQL {name} at {without_password(settings.database_url)}"
    if number < _OLDEST_POSTGRESQL:
        return Check("database", State.FAILED, found, "it must be PostgreSQL 14 or newer: upgrade the server")
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        return Check("database", State.FAILED, f"{found}: a standby, which takes no writes", "name the primary")
    return Check("database", State.OK, found)


async def _connections(connection: Connection, settings: Settings) -> Check:
    limit = int(await connection.fetchval("SHOW max_connections"))
    used = int(
        await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    )
    a_process = settings.database_pool_size + 1  # the API's feed has one besides
    a_worker = settings.database_pool_size + settings.checkpoint_pool_size
    if settings.database_pooler is not None:
        a_process = a_worker = 1  # its feed; all others are the pooler's, which has a bound of its own
    found = (
        f"{used} of {limit} in use; each of {settings.api_workers} API processes takes {a_process} at most, "
        f"a worker process {a_worker}"
    )
    if used + settings.api_workers * a_process + a_worker > limit:
        advice = "raise max_connections, put PgBouncer before it, or lower WORKFLOW_DATABASE_POOL_SIZE"
        return Check("connections", State.WARNING, found, advice)
    return Check("connections", State.OK, found)


async def _clock(connection: Connection, _settings: Settings) -> Check:
    asked = time.time()
    theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
    took = time.time() - asked
    ahead = datetime.now(UTC).timestamp() - took / 2 - theirs.timestamp()
    found = f"this machine's is {abs(ahead):.3f} s {'ahead of' if ahead >= 0 else 'behind'} the database's"
    if abs(ahead) > _CLOCK_DIFFERENCE + took:
        return Check("clocks", State.WARNING, found, "synchronise both by NTP: expiries and logs are read by them")
    return Check("clocks", State.OK, found)


async def _rights(connection: Connection, _settings: Settings) -> Check:
    role = await connection.fetchval("SELECT current_user")
    is_superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    bypasses = await connection.fetchval("SELECT rolbypassrls FROM pg_roles WHERE rolname = current_user")
    if await connection.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None:
        may = await connection.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')")
        lacks = f"may not make the schema {SCHEMA!r}"
        advice = f"GRANT CREATE ON DATABASE … TO {role}, or run workflow-service migrate as a role that may"
    else:
        may = await connection.fetchval("SELECT has_schema_privilege($1, 'USAGE')", SCHEMA)
        lacks, advice = f"may not use the schema {SCHEMA!r}", f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}"
    if not may:
        return Check("rights", State.FAILED, f"role {role} {lacks}", advice)
    if is_superuser or bypasses:
        found = (
            f"role {role} is {'a superuser' if is_superuser else 'BYPASSRLS'}: no row security binds it by itself"
        )
        advice = "let the service connect as a role that is neither; see docs/howto/production.md"
        return Check("rights", State.WARNING, found, advice)
    return Check("rights", State.OK, f"role {role} may use the schema")


async def _schema(settings: Settings) -> Check:
    current, needed = await current_revision(single_connection(settings.database_url)), revisions()[-1]
    if current == needed:
        return Check("schema", State.OK, f"version {current}")
    if current is None or current in revisions():
        found = f"version {current or 'none'}, this release needs {needed}"
        return Check("schema", State.FAILED, found, "run workflow-service migrate")
    found = f"version {current} is of a newer release, this one knows up to {needed}"
    return Check("schema", State.FAILED, found, "install the newer release here")


async def _queue(settings: Settings) -> Check:
    statistics = await PostgresRunStatistics(single_connection(settings.database_url)).count()
    waiting, working = (statistics.unfinished.get(status, 0) for status in ("queued", "running"))
    found = f"{waiting} queued (the oldest for {statistics.queue_age:.0f} s), {working} running"
    if statistics.overdue or statistics.queue_age > _QUEUE_AGE:
        advice = "start more workers, and an API, which sends lost runs again; see the workers' logs"
        return Check("runs", State.WARNING, f"{found}, {statistics.overdue} overdue", advice)
    return Check("runs", State.OK, found)


async def _broker(settings: Settings) -> AsyncIterator[Check]:
    shown = without_password(settings.broker_url)
    try:
        await check_broker(settings.broker_url)
    except UnusableServerError as error:
        found, _, advice = str(error).rpartition("; ")
        yield Check("broker", State.FAILED, found, advice)
        return
    faults = await asyncio.to_thread(redis_faults, settings.broker_url)
    if faults:
        for found, advice in faults:
            yield Check("broker", State.WARNING, found, advice)
    else:
        yield Check("broker", State.OK, shown)
    workers = await asyncio.to_thread(answering_workers, settings.broker_url)
    if workers:
        yield Check("workers", State.OK, f"{len(workers)} answer: {', '.join(sorted(workers))}")
    else:
        yield Check("workers", State.WARNING, "none answers on this broker", "start one: workflow-service worker")


def _machine() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files (up to {hard})"
    if 0 <= soft < _DESCRIPTORS:
        advice = f"ulimit -n {_DESCRIPTORS * 4}, or LimitNOFILE= in the unit: each client and connection is one"
        yield Check("limits", State.WARNING, found, advice)
    else:
        yield Check("limits", State.OK, found)
    yield from map(
        _free, {Path(tempfile.gettempdir()), Path(os.environ.get("WORKFLOW_HOME") or tempfile.gettempdir())}
    )


def _free(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", State.WARNING, f"{folder}: {error.strerror}", "make the folder, or name another")
    found = f"{folder}: {free / 1024**3:.1f} GiB free"
    if free < _FREE_BYTES:
        return Check("disk", State.WARNING, found, "make room: uploads pass through there")
    return Check("disk", State.OK, found)
