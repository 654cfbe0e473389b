"""The Celery application: ``celery --app workflow_service.worker.app worker``."""

import os
import socket
from typing import Any
from uuid import UUID

from celery import Celery, bootsteps, signals
from celery.worker import state

import homeloop.adapters.celery.remote  # noqa: F401  celery inspect homeloop
from homeloop import default_monitor
from homeloop.adapters import prometheus
from homeloop.adapters.celery import install
from workflow_service.bootstrap import worker_services
from workflow_service.contracts import EXECUTE_RUN, QUEUE
from workflow_service.gateways import filesystem_broker
from workflow_service.gateways.metrics import observed_attempt
from workflow_service.logs import bound
from workflow_service.settings import Settings
from workflow_service.usecases.execution import execute_run
from workflow_service.worker.pulse import show_pulse
from workflow_service.worker.telemetry import tell_of_worker

__all__ = ("app",)

_BROKER_SILENCE = 5.0  # seconds that one command may take; a guess: short beside the patience with a frozen worker


class EndsWell(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Lets a worker that was asked to stop exit with 0: Celery does so after SIGTERM, but not after Ctrl-C."""

    def stop(self, parent: Any) -> None:  # Any: likewise
        """Correct the exit code of the worker, unless it tells of an error: then nobody has asked to stop."""
        if state.should_stop not in (None, False):
            parent.exitcode = 0


def _transport_options(broker_url: str) -> dict[str, Any]:  # Any: each transport's own
    # kombu waits for Redis on the consumer's thread, without a bound of its own: one that falls silent would keep
    # the worker from ever finding out, and its pulse from beating, while its runs are well.
    scheme = broker_url.partition(":")[0].partition("+")[0]
    return {"socket_timeout": _BROKER_SILENCE} if scheme in ("redis", "rediss") else {}


def create_app(settings: Settings) -> Celery:
    """Make the worker's application. Connects to nothing; the runtime starts with the first task."""
    filesystem_broker.register()
    app = Celery("workflow_service", broker=settings.broker_url)
    app.conf.update(
        task_default_queue=QUEUE,
        # The database is the truth and a message only a wake-up: its result is of no use. One that comes again
        # finds the run claimed, so runs whose worker was killed, or lost its broker, need no redelivery and no
        # cancellation: the lease guards them, and the reaper sends them again when it is over.
        task_ignore_result=True,
        # Together: a worker takes no more messages than it works on. Acknowledged early, it would hold one more
        # per slot, and a run would wait behind a long one while another worker is idle.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(settings.broker_url),
        # SIGQUIT, or SIGTERM where it is mapped to that, lets runs go on for so long before they are given back.
        worker_soft_shutdown_timeout=settings.worker_grace,
    )
    tell_of_worker(settings)
    app.steps["worker"].add(EndsWell)  # pyright: ignore[reportOptionalSubscript]
    install(app)
    if settings.worker_pulse is not None:
        show_pulse(app, settings.worker_pulse)

    def watch(**_: Any) -> None:
        default_monitor().start(settings.health_interval)
        prometheus.install()

    signals.worker_init.connect(watch, weak=False)  # before a prefork pool forks: its children watch too then
    services = worker_services(settings)

    @app.task(name=EXECUTE_RUN)  # type: ignore[untyped-decorator]  # Celery ships no types
    async def execute(run_id: str) -> None:
        with bound(run_id=run_id), observed_attempt():
            await execute_run(
                UUID(run_id),
                runs=services.runs,
                feed=services.feed,
                perform=services.perform,
                worker_id=f"{socket.gethostname()}:{os.getpid()}",
                lease=settings.run_lease,
            )

    return app


app = create_app(Settings.from_environment())
