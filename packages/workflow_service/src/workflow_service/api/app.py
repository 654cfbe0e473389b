"""The HTTP application: `create_app` joins routes, middleware and the services that bootstrap opens."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from homeloop import default_monitor
from homeloop.adapters.prometheus import install
from workflow_service.api.authentication import Authentication
from workflow_service.api.body_limit import BodyLimit
from workflow_service.api.failures import Failures
from workflow_service.api.http_metrics import HttpMetrics
from workflow_service.api.page import PageMount
from workflow_service.api.problems import add_problem_handlers, problems
from workflow_service.api.readiness import Readiness
from workflow_service.api.routes import PREFIX, documents, health, runs, services, usage, webhooks, workflows
from workflow_service.api.security_headers import SecurityHeaders
from workflow_service.bootstrap import open_api, set_up_logs
from workflow_service.settings import Settings
from workflow_service.usecases.forgetting import forget_forever, prune_forever
from workflow_service.usecases.reaping import reap_forever
from workflow_service.usecases.services import ApiServices
from workflow_service.usecases.webhooks import deliver_forever

UPLOADS_AT_ONCE = 4
"""Files in memory at once: each is there a few times over while it is stored."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; without ``settings`` they are read from the environment.

    Nothing is opened before the server starts it.
    """
    chosen = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, object]]:
        with _watched(chosen.health_interval):
            async with open_api(chosen) as opened, _in_background(opened):
                yield {
                    "services": opened,
                    "loops": lambda: default_monitor().report().as_dict(),
                    "readiness": Readiness(opened.ready),
                    "upload_slots": asyncio.Semaphore(UPLOADS_AT_ONCE),
                }

    app = FastAPI(
        title="workflow_service",
        description="Runs named workflows and analyses contracts.",
        lifespan=lifespan,
        docs_url=None,  # both pages would load scripts from other hosts
        redoc_url=None,
        middleware=[
            Middleware(HttpMetrics),
            Middleware(SecurityHeaders),
            Middleware(Failures),
            Middleware(Authentication),
            Middleware(BodyLimit, upload_path=f"{PREFIX}/documents", max_upload_bytes=chosen.max_upload_bytes),
        ],
    )
    add_problem_handlers(app)
    for module in (documents, runs, services, usage, webhooks, workflows):
        app.include_router(module.router, prefix=PREFIX, responses=problems())
    app.include_router(health.router)
    app.router.routes.append(PageMount())
    return app


@contextmanager
def _watched(interval: float) -> Iterator[None]:
    """Have the health monitor watch the running loop."""
    monitor = default_monitor()
    was_started = monitor.is_started
    unwatch = monitor.watch_loop(name="api")
    if not was_started:
        monitor.start(interval)
    try:
        yield
    finally:
        unwatch()
        if not was_started:
            monitor.stop()


def server_app() -> FastAPI:
    """Return the application for a process that does nothing else: its logs and figures are set up, too.

    What uvicorn calls, in each of its processes: ``uvicorn --factory workflow_service.api.app:server_app``.
    """
    settings = Settings.from_environment()
    set_up_logs(settings)
    install()
    return create_app(settings)


@asynccontextmanager
async def _in_background(services: ApiServices) -> AsyncIterator[None]:
    """Do for the body what belongs to no request: send lost runs again, deliver webhooks, forget what is over."""
    settings = services.settings
    work = {
        "reaper": reap_forever(
            runs=services.runs,
            queue=services.queue,
            interval=settings.reap_interval,
        ),
        "ended runs": forget_forever(
            runs=services.runs,
            workflows=services.workflows,
            interval=settings.reap_interval,
        ),
        "webhooks": deliver_forever(
            webhooks=services.webhooks,
            sender=services.webhook_sender,
            attempts=settings.webhook_attempts,
            lease=2 * settings.webhook_timeout,
            interval=settings.reap_interval,
        ),
        "old answers": prune_forever(services.answers),
    }
    tasks = [asyncio.create_task(each, name=name) for name, each in work.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
