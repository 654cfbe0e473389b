"""The commands: ``up`` serves, ``demo`` shows one analysis and leaves nothing, ``worker`` adds a worker."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click

from workflow_service.cli.client import ApiError, ServiceClient
from workflow_service.cli.home_option import home_option
from workflow_service.cli.keys import keys
from workflow_service.cli.view import View
from workflow_service.domain.run import EventKind
from workflow_service.gateways.servers import UnusableServerError, check_broker, check_database
from workflow_service.local.errors import LocalError, StopRequestedError
from workflow_service.local.home import Home, read_api_keys
from workflow_service.local.postgresql import remove_abandoned_databases
from workflow_service.local.service import Connection, Options, become_worker, run_service
from workflow_service.local.temporary import temporary_home
from workflow_service.local.worker_keeper import WorkerDeath

_WORKFLOW = "contract_analysis"
_SAMPLE = "mutual-nda.pdf"
_SAMPLE_BOUND = 60.0  # seconds the analysis of the sample may take after ``up``


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workflow-service")
def main() -> None:
    """Run named workflows and analyse contracts, on this machine, with nothing else installed.

    Start with "workflow-service demo": it analyses a sample contract, prints what it found and leaves nothing
    behind. "workflow-service up" keeps the service running.
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
    service stays and says how to start another; if it ends with an error, it is started again. Run as root,
    PostgreSQL runs as the system user workflow-service, made if absent, and the database lies in
    /var/lib/workflow-service; the home's file postgresql.json says where. One whose home is gone is named at the
    next start, and removed by the first start a day later.

    \b
    Environment:
      DATABASE_URL       use this PostgreSQL server and start none
      BROKER_URL         use this Redis or RabbitMQ instead of a folder
      WORKFLOW_API_KEYS  keys as JSON, {"alice": "secret"}; else one is made and kept
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
        for database in remove_abandoned_databases():
            view.abandoned(database)
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
@home_option
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Runs at the same time.  [default: as for up]")
def worker(home: Path, concurrency: int | None) -> None:
    """Start one more worker for the service that runs on a home.

    For a worker that was killed, or for more work at the same time. It runs here until Ctrl-C, or until the
    service is stopped.
    """
    _exit_with(View(), lambda: become_worker(Home(home.expanduser().resolve()), concurrency), stopped=lambda _: 0)


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


def _options_from_environment() -> Options:
    keys = os.environ.get("WORKFLOW_API_KEYS")
    return Options(
        database_url=os.environ.get("DATABASE_URL") or None,
        broker_url=os.environ.get("BROKER_URL") or None,
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
