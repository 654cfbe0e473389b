"""The commands: ``up`` and ``demo`` on one machine; ``api``, ``worker``, ``migrate``, ``doctor`` in production."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import asyncpg
import click
from click.core import ParameterSource
from dotenv import dotenv_values

from workflow_service.cli.client import ApiError, ServiceClient
from workflow_service.cli.doctor import State, run_checks
from workflow_service.cli.home_option import home_option
from workflow_service.cli.keys import keys
from workflow_service.cli.migration import migrate_database
from workflow_service.cli.settings_view import all_settings, read_settings
from workflow_service.cli.view import View
from workflow_service.cli.workflow_commands import warn_of_definitions, workflow
from workflow_service.domain.run import EventKind
from workflow_service.gateways.postgres.pooler import refuse_pooler
from workflow_service.gateways.postgres.single import single_connection
from workflow_service.gateways.servers import UnusableServerError, check_broker, check_database
from workflow_service.local.errors import LocalError, StopRequestedError
from workflow_service.local.home import Home, read_api_keys
from workflow_service.local.postgresql import remove_abandoned_databases
from workflow_service.local.programs import become_api, become_worker
from workflow_service.local.service import Connection, Options, become_local_worker, run_service
from workflow_service.local.temporary import temporary_home
from workflow_service.local.worker_keeper import WorkerDeath
from workflow_service.ports import InvalidSettingError
from workflow_service.settings import Settings

_WORKFLOW = "contract_analysis"
_SAMPLE = "mutual-nda.pdf"
_FROM_FILE = "workflow_service.from_file"  # in click's meta: the variables that --env-file has set
_SAMPLE_BOUND = 60.0  # seconds the analysis of the sample may take after ``up``


def _load_env_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Put a file's settings into the environment, where nothing else has set them."""
    if path is None:
        return
    for name, value in dotenv_values(path, interpolate=False).items():
        if value is None:
            raise click.BadParameter(f"{path}: {name!r} has no value; write {name}=value", param_hint="--env-file")
        if name not in os.environ:
            os.environ[name] = value
            context.meta.setdefault(_FROM_FILE, set()).add(name)


def _show_settings(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    view = View()
    settings, fault = None, None
    try:
        settings = read_settings()
    except LocalError as error:
        fault = error
    view.settings(list(all_settings(settings, context.meta.get(_FROM_FILE, ()))))
    if fault is not None:
        view.error(fault)
    context.exit(0 if fault is None else 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="workflow-service")
@click.option(
    "--env-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="WORKFLOW_ENV_FILE",
    show_envvar=True,
    is_eager=True,
    expose_value=False,
    callback=_load_env_file,
    help="File of settings, a line NAME=value each, as systemd reads it. The environment goes before it.",
)
@click.option(
    "--show-settings",
    is_flag=True,
    expose_value=False,
    callback=_show_settings,
    help="Show every setting: variable, value, where it comes from, default, meaning; secrets are masked.",
)
def main() -> None:
    """Run named workflows and analyse contracts.

    On one machine, with nothing else installed: "workflow-service demo" analyses a sample contract, prints what it
    found and leaves nothing behind; "workflow-service up" keeps the service running.

    In production, on PostgreSQL and Redis or RabbitMQ: "migrate", then "api" and as many "worker" as you like,
    each under a process manager; "doctor" tells what is missing. All settings come from the environment.
    """


@main.command()
@home_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, show_default=True, help="0 takes a free one.")
@click.option("--analyse-sample", is_flag=True, help="Analyse a sample contract at the start.")
@click.option(
    "--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="Runs at the same time."
)
def up(home: Path, host: str, port: int, analyse_sample: bool, concurrency: int) -> None:
    """Start the service and keep it running until Ctrl-C.

    Starts a PostgreSQL server of its own, a worker and the API, and prints the page's address with the key in it.
    Ctrl-C (or SIGTERM, SIGHUP) stops them all, a second Ctrl-C does so faster; the exit code is then 0. If the
    API or PostgreSQL ends by itself, everything is stopped and the exit code is 1. If the worker is killed, the
    service stays and says how to start another; if it ends with an error, or crashes, it is started again. If it
    is frozen for WORKFLOW_WORKER_SILENCE seconds, another one replaces it and goes on with its runs. Run as root,
    PostgreSQL runs as the system user workflow-service, made if absent, and the database lies in
    /var/lib/workflow-service; the home's file postgresql.json says where. Those whose homes are gone are told
    of at the next start, and removed by the first start a day later.

    \b
    Environment:
      DATABASE_URL          use this PostgreSQL server and start none
      BROKER_URL            use this Redis or RabbitMQ instead of a folder
      WORKFLOW_API_KEYS     keys as JSON, {"alice": "secret"}; else one is made and kept
      WORKFLOW_DEFINITIONS  a folder with workflow definitions
      (workflow-service --show-settings has all)
    """
    view = View()

    async def serve(connection: Connection) -> None:
        view.serving(connection)
        if analyse_sample:
            try:
                view.summary(await _analyse(connection, None, view, _SAMPLE_BOUND))
            except LocalError as exc:
                view.error(exc)
        await asyncio.Event().wait()  # until a signal or a death cancels this

    def start() -> None:
        options = replace(_options_from_environment(), host=host, port=port, concurrency=concurrency)
        kept = Home.open(home)
        view.abandoned(remove_abandoned_databases())
        if definitions := os.environ.get("WORKFLOW_DEFINITIONS"):
            warn_of_definitions(Path(definitions), view)
        view.say(f"Starting on {kept.path}")

        def worker_died(death: WorkerDeath) -> None:
            view.worker_died(death, str(kept.path))

        asyncio.run(run_service(kept, options, serve, worker_died, lambda: _check_servers(options)))

    _exit_with(view, start, stopped=lambda number: 0)


@main.command()
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Contract to analyse: PDF, DOCX, Markdown or text.  [default: a sample]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Seconds the analysis may take.",
)
def demo(document: Path | None, timeout: float) -> None:
    """Analyse one contract, print what was found, and leave nothing behind.

    Starts the whole service in a temporary folder on a free port, uploads the document, shows the progress and
    the findings, stops everything and removes the folder. The exit code is 0, or 1 after any failure, or 128 plus
    the signal's number (130 after Ctrl-C).
    """
    view = View()

    async def analyse(connection: Connection) -> None:
        view.findings(await _analyse(connection, document, view, timeout))

    def start() -> None:
        with temporary_home() as home:
            os.environ["HOMELOOP_RUN_DIR"] = str(home.path / "loops")  # else its processes' sockets outlive it
            view.say("Starting PostgreSQL, a worker and the API in a temporary folder")
            try:
                asyncio.run(run_service(home, Options(port=0, concurrency=2, durable=False), analyse))
            except LocalError as exc:
                if not isinstance(exc, StopRequestedError):
                    view.error(exc)  # now: the log goes with the folder
                    sys.exit(1)
                raise

    _exit_with(view, start, stopped=lambda number: 128 + number)


@main.command()
@click.option("--host", help="Address to listen on.  [setting: WORKFLOW_API_HOST]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [setting: WORKFLOW_API_PORT]")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Processes that answer.  [setting: WORKFLOW_API_WORKERS]"
)
def api(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve the API and the page, for production.

    Becomes uvicorn, so SIGTERM is its own: open requests have WORKFLOW_API_DRAIN seconds, then it exits with 0. At
    the start the schema is brought up to date. Put a proxy with TLS before it, and name that in
    WORKFLOW_FORWARDED_ALLOW_IPS.

    \b
    Environment (workflow-service --show-settings has all):
      DATABASE_URL       PostgreSQL
      BROKER_URL         Redis or RabbitMQ
      WORKFLOW_API_KEYS  keys as JSON, {"alice": "secret"}
    """

    def start() -> None:
        become_api(_with(read_settings(), api_host=host, api_port=port, api_workers=workers))

    _exit_with(View(), start, stopped=lambda number: 128 + number)


@main.command()
@home_option
@click.option(
    "--pool",
    type=click.Choice(["asyncio", "threads", "prefork", "solo", "gevent", "eventlet"]),
    help="Celery's pool; asyncio is homeloop's, for many runs that wait.  [setting: WORKFLOW_WORKER_POOL]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    help="Runs at the same time.  [setting: WORKFLOW_WORKER_CONCURRENCY; on a home as for up]",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port to tell figures on, for Prometheus; 0 is none.  [setting: WORKFLOW_METRICS_PORT]",
)
@click.pass_context
def worker(
    context: click.Context, home: Path, pool: str | None, concurrency: int | None, metrics_port: int | None
) -> None:
    """Work on runs: for production, or one more worker for the service that runs on a home.

    With DATABASE_URL and BROKER_URL in the environment it works for those, and becomes Celery: after SIGTERM its
    runs go on for WORKFLOW_WORKER_GRACE seconds, then it gives them back, other workers go on with them, and it
    exits with 0.

    With --home, or without DATABASE_URL, it joins the service that "up" runs there: for a worker that was killed,
    or for more work at the same time. It runs until Ctrl-C, or until that service is stopped.
    """
    names_home = context.get_parameter_source("home") is not ParameterSource.DEFAULT

    def start() -> None:
        if names_home or "DATABASE_URL" not in os.environ:
            if pool is not None or metrics_port is not None:
                raise LocalError(
                    "on a home there are no --pool and --metrics-port; set DATABASE_URL and BROKER_URL"
                )
            become_local_worker(Home(home.expanduser().resolve()), concurrency)
        settings = _with(
            read_settings(), worker_pool=pool, worker_concurrency=concurrency, metrics_port=metrics_port
        )
        asyncio.run(_refuse_untold_pooler(settings))
        become_worker(settings)

    _exit_with(View(), start, stopped=lambda _: 0)


@main.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if something is missing.")
@click.option("--sql", is_flag=True, help="Change nothing; print the SQL of what is missing, to be run by hand.")
def migrate(check: bool, sql: bool) -> None:
    """Bring the database's schema up to date.

    All or nothing, and any number at once: one works, the others wait. The API does the same when it starts; this
    is for deployments that want it to be a step of its own.
    """
    view = View()

    def start() -> None:
        if check and sql:
            raise LocalError("--check and --sql exclude each other; choose one")
        database_url = os.environ.get("WORKFLOW_DATABASE_DIRECT_URL") or os.environ.get("DATABASE_URL")
        if not database_url:
            raise LocalError("DATABASE_URL is not set; set it to the PostgreSQL database to migrate")
        if not asyncio.run(migrate_database(view, database_url, check=check, sql=sql)):
            sys.exit(1)

    _exit_with(view, start, stopped=lambda number: 128 + number)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print an object for each check instead of lines.")
@click.option("--strict", is_flag=True, help="Exit with 1 after warnings, too.")
def doctor(as_json: bool, strict: bool) -> None:
    """Check whether the service can work with its settings here, and say what to do where it cannot.

    Settings, database (rights, version, connections, clock), schema, broker, workers, waiting runs, keys, external
    services and models, disk, limits of the system. Changes nothing. The exit code is 1 if a check failed.
    """
    view = View()

    def start() -> None:
        checks = asyncio.run(run_checks())
        if as_json:
            view.say(json.dumps([asdict(check) for check in checks], ensure_ascii=False, indent=2))
        else:
            view.checks(checks)
        worst = max(check.state for check in checks)
        if worst is State.FAILED or (strict and worst is State.WARNING):
            sys.exit(1)

    _exit_with(view, start, stopped=lambda number: 128 + number)


def _with(settings: Settings, **chosen: object) -> Settings:
    """Return the settings with what the command line chose, also for the program that this process becomes."""
    changed = {name: value for name, value in chosen.items() if value is not None}
    os.environ.update({f"WORKFLOW_{name}".upper(): str(value) for name, value in changed.items()})
    return settings.model_copy(update=changed)


main.add_command(workflow)
main.add_command(keys)


def _exit_with(view: View, start: Callable[[], None], stopped: Callable[[int], int]) -> None:
    try:
        start()
    except StopRequestedError as exc:
        view.say(f"Stopped after {signal.Signals(exc.signal_number).name}.")
        sys.exit(stopped(exc.signal_number))
    except KeyboardInterrupt:  # before or after the supervisor listens to signals
        view.say(f"Stopped after {signal.SIGINT.name}.")
        sys.exit(stopped(signal.SIGINT))
    except LocalError as exc:
        view.error(exc)
        sys.exit(1)


async def _check_servers(options: Options) -> None:
    """Raise LocalError if a server that the user chose cannot be used."""
    try:
        if options.database_url is not None:
            await check_database(options.database_url)
        if options.broker_url is not None:
            await check_broker(options.broker_url)
    except UnusableServerError as exc:
        raise LocalError(str(exc)) from exc


async def _refuse_untold_pooler(settings: Settings) -> None:
    """Raise LocalError if a pooler stands before the database and no setting says so: each run would fail."""
    if settings.database_pooler is not None:
        return
    try:
        # A database that is away is waited for, run by run.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with single_connection(settings.database_url)() as connection:
                await refuse_pooler(connection)
    except InvalidSettingError as error:
        raise LocalError(str(error)) from error


def _options_from_environment() -> Options:
    database_url, broker_url = os.environ.get("DATABASE_URL") or None, os.environ.get("BROKER_URL") or None
    own = {"database_url": "postgresql://", "broker_url": "safefs://"}  # what ``up`` brings itself
    named = {"database_url": database_url, "broker_url": broker_url}
    # What the settings lack is told here, not by processes that end.
    settings = read_settings(**{name: url for name, url in own.items() if named[name] is None})
    keys = os.environ.get("WORKFLOW_API_KEYS")
    return Options(
        worker_silence=settings.worker_silence,
        database_url=database_url,
        broker_url=broker_url,
        api_keys=read_api_keys(keys, "WORKFLOW_API_KEYS") if keys else None,
    )


async def _analyse(connection: Connection, document: Path | None, view: View, timeout: float) -> dict[str, Any]:
    """Upload a document (None: the sample), run the analysis and return its result; shows the progress."""
    try:
        async with asyncio.timeout(timeout), ServiceClient(connection.address, connection.key) as client:
            document_id = await _with_document(document, client.upload)
            run_id = await client.execute(_WORKFLOW, {"document_id": document_id})
            ended = EventKind.QUEUED
            with view.progress("Analysing") as show:
                async for event in client.follow(run_id):
                    ended = EventKind(event["kind"])
                    if ended is EventKind.PROGRESS:
                        show(int(event["data"]["percent"]), str(event["data"]["description"]))
            if ended is not EventKind.SUCCEEDED:
                error = (await client.run(run_id)).get("error") or {}
                raise ApiError(f"the analysis {ended}: {error.get('message') or error}")
            return await client.result(run_id)
    except TimeoutError as exc:
        raise ApiError(
            f"the analysis did not end within {timeout:g} s; try a smaller document or a longer --timeout"
        ) from exc


async def _with_document(document: Path | None, use: Callable[[Path], Awaitable[str]]) -> str:
    if document is not None:
        return await use(document)
    with as_file(files("workflow_service") / "samples" / _SAMPLE) as sample:
        return await use(sample)
