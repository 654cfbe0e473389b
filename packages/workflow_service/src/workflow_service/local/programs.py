"""The programs that serve, uvicorn and Celery: how they are started, by hand, by a process manager or by ``up``.

In production the command becomes the program, so that signals and exit codes are the program's own.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from workflow_service.contracts import QUEUE
from workflow_service.local.errors import LocalError
from workflow_service.settings import Settings

SERVE_API = (
    *("uvicorn", "workflow_service.api.app:server_app", "--factory"),
    *("--http", "workflow_service.api.connections:PatientProtocol"),
)
"""uvicorn, with the factory that it calls in each of its processes, and the bounds on slow clients."""

TELL_STACKS = {"PYTHONFAULTHANDLER": "1"}
"""The variable that has a process write what its threads do when it crashes, and at SIGABRT, however it hangs."""

_WORKER = "workflow_service.worker.app"
_ASYNCIO_POOL = "homeloop.adapters.celery.pool:TaskPool"
_BACKLOG = "2048"


def become_api(settings: Settings) -> NoReturn:
    """Replace this process by uvicorn, serving the API.

    Raises:
        LocalError: The program could not be started.
    """
    environment = {}
    if settings.api_workers > 1:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_folder(f"api-{settings.api_port}"))
    arguments = (
        *(*SERVE_API, "--host", settings.api_host, "--port", str(settings.api_port)),
        *("--workers", str(settings.api_workers), "--backlog", _BACKLOG),
        *("--timeout-graceful-shutdown", str(settings.api_drain)),
        *("--forwarded-allow-ips", settings.forwarded_allow_ips, "--no-server-header"),
        *("--log-level", "warning"),  # before the application sets its own: in the parent of several processes
    )
    _become(arguments, environment)


def become_worker(settings: Settings) -> NoReturn:
    """Replace this process by a Celery worker.

    Raises:
        LocalError: The program could not be started.
    """
    pool = settings.worker_pool
    # SIGTERM, which every process manager sends, begins Celery's soft shutdown: runs go on for the grace, then
    # they are cancelled, which gives them back. Celery's own answer to SIGTERM would wait for them without end.
    environment = {"REMAP_SIGTERM": "SIGQUIT", **TELL_STACKS}
    arguments = worker_arguments(pool, settings.worker_concurrency, settings.log_level)
    if pool == "asyncio":
        environment["CELERY_CUSTOM_WORKER_POOL"] = _ASYNCIO_POOL
    if pool == "prefork":
        if settings.metrics_port:
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_folder(f"worker-{settings.metrics_port}"))
        if settings.worker_max_runs:
            arguments += ("--max-tasks-per-child", str(settings.worker_max_runs))
    _become(arguments, environment)


def worker_arguments(pool: str, concurrency: int, log_level: str = "INFO") -> tuple[str, ...]:
    """Return the arguments of Python that start a worker."""
    return (
        *("celery", "--quiet", "--app", _WORKER, "worker", "--queues", QUEUE, "--loglevel", log_level),
        *("--pool", "custom" if pool == "asyncio" else pool, "--concurrency", str(concurrency)),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )


def _become(arguments: tuple[str, ...], environment: Mapping[str, str]) -> NoReturn:
    argv = [sys.executable, "-m", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, argv, {"PYTHONUNBUFFERED": "1", **os.environ, **environment})  # noqa: S606
    except OSError as error:
        raise LocalError(f"{arguments[0]} could not be started: {error}; tried {sys.executable}") from error


def _metrics_folder(name: str) -> Path:
    """Return an empty folder where the processes of one server put their figures for each other."""
    # systemd's RuntimeDirectory, where there is one: it goes with the service.
    parent = Path(os.environ.get("RUNTIME_DIRECTORY") or tempfile.gettempdir())
    folder = parent / f"workflow-service-metrics-{os.getuid()}-{name}"
    try:
        if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
            raise LocalError(f"the folder for metrics {folder} is somebody else's; remove it, or set TMPDIR")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise LocalError(
            f"the folder for metrics {folder} cannot be made: {error}; set TMPDIR to another"
        ) from error
    return folder
