"""The HTTP application: `create_app` joins routes, middleware and the services that bootstrap opens."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

from workflow_service.api.authentication import Authentication
from workflow_service.api.body_limit import BodyLimit
from workflow_service.api.failures import Failures
from workflow_service.api.page import PageMount
from workflow_service.api.problems import add_problem_handlers
from workflow_service.api.readiness import Readiness
from workflow_service.api.routes import PREFIX, documents, health, runs, services, usage, workflows
from workflow_service.api.security_headers import SecurityHeaders
from workflow_service.bootstrap import open_api
from workflow_service.settings import Settings
from workflow_service.usecases.reaping import reap_forever
from workflow_service.usecases.services import ApiServices

UPLOADS_AT_ONCE = 4
"""Files in memory at once: each is there a few times over while it is stored."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; without ``settings`` they are read from the environment.

    Nothing is opened before the server starts it.
    """
    chosen = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, object]]:
        async with open_api(chosen) as opened, _reaping(opened):
            yield {
                "services": opened,
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
            Middleware(SecurityHeaders),
            Middleware(Failures),
            Middleware(Authentication),
            Middleware(BodyLimit, upload_path=f"{PREFIX}/documents", max_upload_bytes=chosen.max_upload_bytes),
        ],
    )
    add_problem_handlers(app)
    for module in (documents, runs, services, usage, workflows):
        app.include_router(module.router, prefix=PREFIX)
    app.include_router(health.router)
    app.router.routes.append(PageMount())
    return app


@asynccontextmanager
async def _reaping(services: ApiServices) -> AsyncIterator[None]:
    interval = services.settings.reap_interval
    reaper = asyncio.create_task(
        reap_forever(runs=services.runs, queue=services.queue, interval=interval), name="reaper"
    )
    try:
        yield
    finally:
        reaper.cancel()
        await asyncio.wait([reaper])
